"""The report of a soak as one page that needs nothing from elsewhere: a table of slopes, and a line for each figure."""

from collections.abc import Sequence
from html import escape

from tests.chaos.soaking.samples import FIGURES

_WIDTH, _HEIGHT = 900, 110
_STYLE = """
:root { --back: #ffffff; --text: #24292f; --grid: #d0d7de; --line: #0969da; --bad: #cf222e }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --grid: #30363d; --line: #58a6ff; --bad: #f85149 } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--grid) }
th:first-child, td:first-child { text-align: left } .bad { color: var(--bad); font-weight: 600 } h2 { font-size: 1rem; margin: 1.4rem 0 .2rem }
svg { width: 100%; height: auto } polyline { fill: none; stroke: var(--line); stroke-width: 1.5 } line { stroke: var(--grid) }
text { font: 11px system-ui, sans-serif; fill: var(--text) }
"""


def page(found: dict) -> str:
    """Return the page of a soak (``tests.chaos.soak.as_json``)."""
    names = ("figure", "at first", "per hour", "95 % interval, per hour", "growth in the run")
    rows = "".join(_row(name, found["slopes"][name]) for name in FIGURES)
    verdict = (
        "".join(f'<p class="bad">{escape(text)}</p>' for text in found["failures"])
        or "<p>Nothing grows, nothing failed.</p>"
    )
    charts = "".join(_chart(name, found["samples"], found["settled"]) for name in FIGURES)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Soak</title><style>{_STYLE}</style></head><body>'
        f"<h1>Soak of {found['seconds'] / 60:.0f} minutes on {escape(found['store'])}</h1>{verdict}"
        f"<p>{found['good']:,} good requests, {found['hostile']:,} hostile ones in {found['rounds']} rounds.</p>"
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{rows}</table>{charts}</body></html>\n"
    )


def _row(name: str, slope: dict) -> str:
    cells = (
        f"{slope['level']:,.4g}",
        f"{slope['per_hour']:+,.3g}",
        f"{slope['least']:+,.3g} … {slope['most']:+,.3g}",
        f"{slope['growth']:+.1%}",
    )
    kind = ' class="bad"' if slope["fails"] else ""
    return f"<tr{kind}><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _chart(name: str, samples: Sequence[dict], settled: float) -> str:
    values, times = [one[name] for one in samples], [one["at"] for one in samples]
    most, last = max(values) or 1, max(times[-1] - times[0], 1)
    points = " ".join(
        f"{_WIDTH * (at - times[0]) / last:.1f},{_HEIGHT - (_HEIGHT - 14) * value / most:.1f}"
        for at, value in zip(times, values, strict=True)
    )
    start = _WIDTH * settled / last
    return (
        f"<h2>{name}</h2><svg viewBox='0 0 {_WIDTH} {_HEIGHT}'><line x1='{start:.1f}' x2='{start:.1f}' y1='0' y2='{_HEIGHT}'/>"
        f"<polyline points='{points}'/><text x='2' y='10'>{most:,.4g} {FIGURES[name][0]}</text></svg>"
    )
