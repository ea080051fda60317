"""The timeline of a run: what it measured in each bit of time, and its picture in SVG."""

from collections.abc import Iterator, Sequence
from html import escape
from statistics import median

from tests.chaos.evidence import Evidence

_BUCKETS = 150
_LEFT, _WIDTH, _RIGHT = 64, 900, 16
_BANDS = (("requests/s", 90), ("latency, ms", 90), ("failed/s", 50))
_GAP, _TOP, _FAULTS = 26, 6, 32

STYLE = """
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: var(--text) }
.grid { stroke: var(--grid) } .good { fill: var(--good) } .bad { fill: var(--bad) }
.line { fill: none; stroke: var(--line); stroke-width: 1.5 } .most { fill: none; stroke: var(--most); stroke-width: 1 }
.fault { fill: var(--fault); opacity: .28 } .mark { fill: var(--fault) }
"""


def buckets(evidence: Evidence) -> dict:
    """Return the figures of each bit of time: ``width`` in seconds, and lists of one value for each bit."""
    seconds = max(1.0, max((attempt.ended or 0 for _, attempt in evidence.attempts), default=0) - evidence.began)
    width = seconds / _BUCKETS
    times: list[list[float]] = [[] for _ in range(_BUCKETS)]
    failed = [0] * _BUCKETS
    for _, attempt in evidence.attempts:
        if attempt.ended is None:
            continue
        at = min(_BUCKETS - 1, max(0, int((attempt.ended - evidence.began) / width)))
        if attempt.outcome == "unknown":
            failed[at] += 1
        else:
            times[at].append(1000 * (attempt.ended - attempt.began))
    return {
        "width": round(width, 4),
        "answered": [len(some) for some in times],
        "failed": failed,
        "median": [round(median(some), 1) if some else None for some in times],
        "most": [round(max(some), 1) if some else None for some in times],
        "faults": [
            (round(one.began - evidence.began, 3), round(one.ended - evidence.began, 3), one.what)
            for one in evidence.windows
        ],
    }


def svg(found: dict, title: str) -> str:
    """Return the picture of a run's buckets."""
    height = _TOP + _FAULTS + sum(high + _GAP for _, high in _BANDS) + 14
    told = f"{title}: {sum(found['answered'])} requests answered, {sum(found['failed'])} failed"
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img">',
        f"<title>{escape(told)}</title>",
        *_faults(found, height),
    ]
    width, top = found["width"], _TOP + _FAULTS
    rates = [[count / width for count in found[name]] for name in ("answered", "failed")]
    drawn += _band(0, top, max(rates[0]), _bars(rates[0], top, _BANDS[0][1], "good"))
    top += _BANDS[0][1] + _GAP
    most = max((one for one in found["most"] if one is not None), default=1)
    lines = [_line(found[name], top, _BANDS[1][1], most, kind) for name, kind in (("most", "most"), ("median", "line"))]
    drawn += _band(1, top, most, lines)
    top += _BANDS[1][1] + _GAP
    drawn += _band(2, top, max(rates[1]), _bars(rates[1], top, _BANDS[2][1], "bad"))
    drawn += _axis(found, top + _BANDS[2][1])
    return "\n".join([*drawn, "</svg>"])


def _x(at: float, found: dict) -> float:
    return _LEFT + _WIDTH * at / (found["width"] * _BUCKETS)


def _faults(found: dict, height: float) -> Iterator[str]:
    yield f'<text x="{_LEFT - 8}" y="{_TOP + 8}" text-anchor="end">faults</text>'
    for began, ended, what in found["faults"]:
        x, wide = _x(began, found), max(1.0, _x(ended, found) - _x(began, found))
        place = f'x="{x:.1f}" width="{wide:.1f}"'
        yield f'<rect class="fault" {place} y="{_TOP}" height="{height - _TOP - 30}"/>'
        yield f'<rect class="mark" {place} y="{_TOP}" height="9"><title>{escape(f"{began:.1f} s: {what}")}</title></rect>'


def _band(number: int, top: float, most: float, drawn: Sequence[str]) -> list[str]:
    name, high = _BANDS[number]
    bottom = top + high
    lines = "".join(f'<path class="grid" d="M{_LEFT} {y}H{_LEFT + _WIDTH}"/>' for y in (top, bottom))
    labels = (
        f'<text x="{_LEFT - 8}" y="{top + 9}" text-anchor="end">{most:.0f}</text>'
        f'<text x="{_LEFT - 8}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{top - 5}">{escape(name)}{"" if number != 1 else ": median, and the longest"}</text>'
    )
    return [lines, labels, *drawn]


def _bars(values: Sequence[float], top: float, high: float, kind: str) -> list[str]:
    most, wide = max(values) or 1, _WIDTH / _BUCKETS
    return [
        f'<rect class="{kind}" x="{_LEFT + number * wide:.1f}" y="{top + high * (1 - value / most):.1f}"'
        f' width="{wide:.1f}" height="{high * value / most:.1f}"/>'
        for number, value in enumerate(values)
        if value
    ]


def _line(values: Sequence[float | None], top: float, high: float, most: float, kind: str) -> str:
    way, wide, pen = [], _WIDTH / _BUCKETS, "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        way.append(f"{pen}{_LEFT + (number + 0.5) * wide:.1f} {top + high * (1 - value / most):.1f}")
        pen = "L"
    return f'<path class="{kind}" d="{" ".join(way)}"/>'


def _axis(found: dict, bottom: float) -> Iterator[str]:
    seconds = found["width"] * _BUCKETS
    step = next(one for one in (1, 2, 5, 10, 20, 60, 120, 300, 600, 3600) if seconds / one <= 12 or one == 3600)
    for at in range(0, int(seconds) + 1, step):
        yield f'<text x="{_x(at, found):.1f}" y="{bottom + 16}" text-anchor="middle">{at} s</text>'
