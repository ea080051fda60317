"""The charts: SVG by hand, with colours of their own for light and dark pages."""

import math
from collections.abc import Iterable, Sequence
from html import escape

from tests.bench import machine

_COLOURS = {"sqlite": "a", "file": "b", "postgresql": "c", "plain": "d", "GET": "a", "POST": "b"}
_NAMES = {"sqlite": "SQLite", "file": "file system", "postgresql": "PostgreSQL", "plain": "plain server (SQLite)"}
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f } .small { font-size: 10px } .title { font-weight: 600 }
  .back { fill: #ffffff } .line { stroke: #d0d7de } .axis { stroke: #57606a }
  .a { fill: #0969da; stroke: #0969da } .b { fill: #1a7f37; stroke: #1a7f37 }
  .c { fill: #9a6700; stroke: #9a6700 } .d { fill: #8c959f; stroke: #8c959f }
  rect.a, rect.b, rect.c, rect.d { stroke: none } path { fill: none !important; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .back { fill: #0d1117 } .line { stroke: #30363d } .axis { stroke: #8b949e }
    .a { fill: #58a6ff; stroke: #58a6ff } .b { fill: #3fb950; stroke: #3fb950 }
    .c { fill: #d29922; stroke: #d29922 } .d { fill: #6e7681; stroke: #6e7681 }
  }
"""
_BAR, _GAP, _LEFT = 13, 14, 150
_PANEL_WIDTH, _PANEL_HEIGHT = 260, 190


def _svg(width: int, height: int, title: str, told: str, drawn: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img" aria-labelledby="title told">\n<title id="title">{escape(title)}</title>\n'
        f'<desc id="told">{escape(told)}</desc>\n<style>{_STYLE}</style>\n'
        f'<rect class="back" width="{width}" height="{height}" rx="6"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def efficiency(result: dict) -> str:
    """Return bars of the efficiency for each call and size, one for each store, and the plain server's for comparison."""
    drawn, told, y = [], [], 78
    cells = [cell for cell in result["cells"] if any("efficiency" in one for one in cell["servers"].values())]
    servers = [name for name in cells[0]["servers"] if name in _NAMES] if cells else []
    scale = 460 / max(1.0, *(cell["servers"][name]["efficiency"]["median"] for cell in cells for name in servers))
    for cell in cells:
        middle = y + _BAR * len(servers) / 2 + 4
        drawn.append(_text(_LEFT - 10, middle, f"{cell['call']}, {cell['size']}", anchor="end"))
        for name in servers:
            of = cell["servers"][name]["efficiency"]
            long, low, high = (scale * of[which] for which in ("median", "min", "max"))
            drawn.append(f'<rect class="{_COLOURS[name]}" x="{_LEFT}" y="{y}" width="{long:.1f}" height="{_BAR - 2}"/>')
            at = y + _BAR / 2 - 1
            drawn.append(f'<path class="axis" d="M{_LEFT + low:.1f} {at}H{_LEFT + high:.1f}" style="stroke-width:1"/>')
            drawn.append(_text(_LEFT + max(long, high) + 5, y + 10, f"{of['median']:.2f}", "small"))
            told.append(f"{cell['call']} {cell['size']} {_NAMES[name]} {of['median']:.2f}")
            y += _BAR
        y += _GAP
    grid = [_grid(scale * tenth / 4, 70, y - _GAP + 6, f"{tenth / 4:g}") for tenth in range(5)]
    title = "Efficiency: CPU of the floor over CPU of the server, per request"
    top = [_text(16, 24, title, "title"), *_legend(servers, 16, 46)]
    caption = _text(16, y + 26, machine.line(result["machine"]), "small")
    return _svg(720, y + 40, title, "; ".join(told), [*top, *grid, *drawn, caption])


def _grid(x: float, top: float, bottom: float, label: str) -> str:
    line = f'<path class="line" d="M{_LEFT + x:.1f} {top}V{bottom}" style="stroke-width:1"/>'
    return line + _text(_LEFT + x, bottom + 12, label, "small", "middle")


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    drawn = []
    for name in names:
        drawn.append(f'<rect class="{_COLOURS[name]}" x="{x}" y="{y - 9}" width="10" height="10"/>')
        drawn.append(_text(x + 15, y, _NAMES.get(name, name)))
        x += 32 + 7 * len(_NAMES.get(name, name))
    return drawn


def growth(result: dict) -> str:
    """Return small charts of the CPU per request, and of the time of a GET, over what grows."""
    found = result["growth"]
    panels = [
        ("states stored: median GET, ms", _series(found["stored"], "stored", "p50")),
        ("bytes of content: CPU, ms", _series(found["size"]["rows"], "size", "cpu")),
        ("clients: CPU, ms", _series(found["clients"], "clients", "cpu")),
        ("clients: requests/s", _series(found["clients"], "clients", "requests_per_second", 1)),
        ("workers: requests/s", _series(found["workers"], "workers", "requests_per_second", 1)),
        ("tenants with a pair each: CPU, ms", _series(found["tenants"], "tenants", "cpu")),
    ]
    title = "How cost grows, SQLite"
    drawn = [_text(16, 24, title, "title"), *_legend(("GET", "POST"), 16, 46)]
    for number, (name, series) in enumerate(panels):
        drawn += _panel(16 + number % 3 * _PANEL_WIDTH, 60 + number // 3 * _PANEL_HEIGHT, name, series)
    height = 60 + 2 * _PANEL_HEIGHT + 30
    drawn.append(_text(16, height - 12, machine.line(result["machine"]), "small"))
    told = "; ".join(
        f"{name}: " + ", ".join(f"{call} at {x:g} {y:.3g}" for call, points in series.items() for x, y, *_ in points)
        for name, series in panels
    )
    return _svg(16 + 3 * _PANEL_WIDTH, height, title, told, drawn)


def _series(rows: Sequence[dict], what: str, figure: str, factor: float = 1000) -> dict[str, list[tuple]]:
    """Return call → points (x, median, least, most) of ``figure``."""
    series: dict[str, list[tuple]] = {}
    for row in rows:
        point = (row[what], *(factor * row[figure][name] for name in ("median", "min", "max")))
        series.setdefault(row["call"], []).append(point)
    return series


def _panel(left: float, top: float, name: str, series: dict[str, list[tuple]]) -> list[str]:
    """Return one chart: x by its logarithm, y from 0, or by its logarithm too where it spans more than a hundredfold."""
    points = [point for some in series.values() for point in some]
    least, most = min(point[2] for point in points), max(point[3] for point in points)
    by_logarithm = most > 100 * least
    xs = sorted({point[0] for point in points})
    wide, high, x0, y0 = _PANEL_WIDTH - 70, _PANEL_HEIGHT - 70, left + 42, top + _PANEL_HEIGHT - 40

    def x_of(value: float) -> float:
        return x0 + wide * math.log(value / xs[0]) / math.log(xs[-1] / xs[0])

    def y_of(value: float) -> float:
        share = math.log(value / least) / math.log(most / least) if by_logarithm else value / most
        return y0 - high * share

    drawn = [
        _text(left, top + 12, name),
        f'<path class="axis" d="M{x0} {y0 - high}V{y0}H{x0 + wide}" style="stroke-width:1"/>',
    ]
    drawn += [_text(x_of(x), y0 + 14, _short(x), "small", "middle") for x in xs]
    drawn += [_text(x0 - 5, y_of(y) + 4, f"{y:.3g}", "small", "end") for y in (least if by_logarithm else 0, most)]
    for call, some in series.items():
        kind = _COLOURS[call]
        way = " ".join(f"{'ML'[number > 0]}{x_of(x):.1f} {y_of(y):.1f}" for number, (x, y, *_) in enumerate(some))
        drawn.append(f'<path class="{kind}" d="{way}"/>')
        for x, y, low, top_most in some:
            drawn.append(f'<circle class="{kind}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.5"/>')
            drawn.append(
                f'<path class="{kind}" d="M{x_of(x):.1f} {y_of(low):.1f}V{y_of(top_most):.1f}" style="stroke-width:1"/>'
            )
    return drawn


def _short(value: float) -> str:
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"
