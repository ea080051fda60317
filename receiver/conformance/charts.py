"""Small inline SVG charts of a run's timings. Their colours come from the page's style sheet."""

import math

from markupsafe import Markup

from receiver.conformance.run import VERDICTS, Report, Result

_WIDTH, _ROW = 560, 26
_CLASSES = dict(zip(VERDICTS, ("pass", "fail", "undecided"), strict=True))


def verdict_class(verdict: str) -> str:
    """Return the CSS class of ``verdict``."""
    return _CLASSES[verdict]


def share(report: Report, group: str | None = None) -> Markup:
    """Return a bar that shows the share of each verdict in ``report``, or in one ``group`` of it."""
    counts = [(verdict, report.count(verdict, group)) for verdict in VERDICTS]
    total, at, parts = sum(count for _, count in counts) or 1, 0.0, []
    for verdict, count in counts:
        width = 100 * count / total
        parts.append(f'<rect class="{_CLASSES[verdict]}" x="{at:.3f}" width="{width:.3f}" height="8"/>')
        at += width
    label = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
    return Markup(  # noqa: S704 - numbers and fixed words
        f'<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def bar(seconds: float, longest: float) -> Markup:
    """Return a bar for ``seconds`` relative to ``longest``. The scale is a square root, so that short times show."""
    width = max(1.0, 60 * math.sqrt(max(0.0, seconds) / longest))
    return Markup(  # noqa: S704
        f'<svg class="bar" viewBox="0 0 60 8" width="60" height="8" aria-hidden="true"><rect width="{width:.1f}"'
        ' height="8" rx="1"/></svg>'
    )


def calls(report: Report) -> Markup:
    """Return a chart of the calls' times: for each method the median and the 90th percentile."""
    times: dict[str, list[float]] = {}
    for result in report.results:
        for method, seconds in result.record.times:
            if seconds and method in ("GET", "POST", "DELETE"):
                times.setdefault(method, []).append(1000 * seconds)
    rows = [(method, len(some), _quantile(some, 0.5), _quantile(some, 0.9)) for method, some in times.items()]
    scale = max((most for *_, most in rows), default=1) or 1
    drawn = []
    for number, (method, count, half, most) in enumerate(rows):
        y, long = number * _ROW, 300 / scale
        drawn.append(
            f'<text x="0" y="{y + 16}">{method} × {count}</text>'
            f'<rect class="wide" x="110" y="{y + 5}" width="{max(1, most * long):.1f}" height="14" rx="2"/>'
            f'<rect class="narrow" x="110" y="{y + 8}" width="{max(1, half * long):.1f}" height="8" rx="2"/>'
            f'<text x="{118 + most * long:.1f}" y="{y + 16}">{half:.1f} ms, {most:.1f} ms</text>'
        )
    return _chart(drawn, len(rows) * _ROW, "Time of a call: median and 90th percentile")


def _quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def groups(report: Report) -> Markup:
    """Return a chart of how long each group of checks took."""
    times = {group: sum(result.seconds for result in some) for group, some in report.groups().items()}
    scale, drawn = max(times.values(), default=1) or 1, []
    for number, (group, seconds) in enumerate(times.items()):
        y, width = number * _ROW, max(1, 330 * seconds / scale)
        drawn.append(
            f'<text x="0" y="{y + 16}">{group}</text>'
            f'<rect class="narrow" x="110" y="{y + 6}" width="{width:.1f}" height="12" rx="2"/>'
            f'<text x="{118 + width:.1f}" y="{y + 16}">{seconds:.2f} s</text>'
        )
    return _chart(drawn, len(times) * _ROW, "Time of each group of checks")


def _chart(drawn: list[str], height: int, title: str) -> Markup:
    return Markup(  # noqa: S704 - numbers, methods and group names: nothing from the network
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {max(height, 1)}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{''.join(drawn)}</svg>"
    )


def slowest(report: Report, count: int = 8) -> list[Result]:
    """Return the ``count`` slowest results."""
    return sorted(report.results, key=lambda result: -result.seconds)[:count]
