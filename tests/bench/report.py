"""What a run found, as Markdown: first what was promised, then every store and size, then how cost grows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tabulate import tabulate

from tests.bench import machine

_STORES = {"sqlite": "SQLite", "file": "file system", "postgresql": "PostgreSQL"}
_NAMES = _STORES | {"floor": "*floor*", "plain": "*plain server*"}


@dataclass(frozen=True)
class Promise:
    """A line of the issue's "Must show": the ``figure`` of a run, None where it did not measure it, and its bound."""

    text: str
    target: str
    figure: float | None
    unit: str
    holds: bool

    def row(self) -> tuple[str, str, str, str]:
        if self.figure is None:
            return self.text, self.target, "not measured", "–"
        return self.text, self.target, f"{self.figure:.2f}{self.unit}", "holds" if self.holds else "**missed**"


def _at_least(text: str, target: float, figure: float | None, unit: str = "") -> Promise:
    return Promise(text, f"≥ {target:g}{unit}", figure, unit, figure is not None and figure >= target)


def _below(text: str, target: float, figure: float | None, unit: str = "") -> Promise:
    return Promise(text, f"< {target:g}{unit}", figure, unit, figure is not None and figure < target)


def promises(result: dict) -> list[Promise]:
    """Return what the issue asks for, with what ``result`` found."""
    return [*_of_the_table(result["cells"]), *_of_growth(result.get("growth"))]


def _of_the_table(cells: list[dict]) -> Iterator[Promise]:
    def figure(call: str, size: str, server: str, name: str) -> float | None:
        for cell in cells:
            if (cell["call"], cell["size"]) == (call, size) and name in cell["servers"].get(server, {}):
                return cell["servers"][server][name]["median"]
        return None

    for server, call, target in (
        ("sqlite", "GET", 0.75),
        ("sqlite", "POST", 0.65),
        ("sqlite", "DELETE", 0.55),
        ("postgresql", "GET", 0.65),
        ("postgresql", "POST", 0.50),
    ):
        text = f"efficiency, {call}, 7 KB, {_STORES[server]}"
        yield _at_least(text, target, figure(call, "7 KB", server, "efficiency"))
    for call, target in (("GET", 2.0), ("POST", 1.7)):
        text = f"requests/s over the plain server's, {call}, 7 KB, SQLite"
        yield _at_least(text, target, figure(call, "7 KB", "sqlite", "to_plain"), " ×")
    for call in ("GET", "POST"):
        seconds = figure(call, "1 MB", "sqlite", "cpu")
        yield _below(f"CPU of a {call}, 1 MB, SQLite", 12, seconds and 1000 * seconds, " ms")


def _of_growth(growth: dict | None) -> Iterator[Promise]:
    """Yield the rest; the memory is the worst store's."""
    memory = growth["memory"] if growth else []
    for call in ("GET", "POST"):
        some = [row["multiple"] for row in memory if row["call"] == call and row["server"] != "plain"]
        yield _below(f"peak memory of a worker above its base, {call}, 10 MB", 6, max(some, default=None), " × content")
    medians = [row["p50"]["median"] for row in growth["stored"]] if growth else []
    grown = medians[-1] / medians[0] if medians else None
    yield _below("median GET with 10⁶ states stored over that with 10³", 1.1, grown, " ×")
    start = next((row for row in growth["start"] if row["server"] == "receiver"), None) if growth else None
    for name, figure in (("shared pages counted once", "pss"), ("each process's added up", "rss")):
        what = f"idle server of 2 workers, resident in all ({name})"
        yield _below(what, 120, start and start[figure]["median"] / 1e6, " MB")
    yield _below("first request answered after the start command", 1.5, start and start["seconds"]["median"], " s")


def markdown(result: dict) -> str:
    """Return the whole report."""
    options = result["options"]
    cells = result["cells"]
    parts = [
        "# Speed",
        f"Measured on {machine.line(result['machine'])}: {options['rounds']} interleaved rounds, {options['workers']}"
        f" workers, {options['clients']} clients. Each figure is the median of the rounds, with the least and the most"
        " of them. *Efficiency* is the floor's CPU over ours; *CPU* is that of all processes of the server, per request,"
        " without a database server's, which stands beside it.",
        "## What was promised",
        _table([one.row() for one in promises(result)], ("what", "target", "figure", "verdict")),
        "## Calls",
    ]
    for size in dict.fromkeys(cell["size"] for cell in cells):
        rows = [row for cell in cells if cell["size"] == size for row in _rows(cell)]
        parts += [f"### {size}", _table(rows, _HEADERS)]
    if "growth" in result:
        parts += list(_growth(result["growth"]))
    parts += [
        "## Machine",
        _table(result["machine"].items(), ("what", "which")),
        f"The run took {result['seconds']:.0f} s.",
    ]
    return "\n\n".join(parts) + "\n"


_HEADERS = (
    *("call", "server", "requests/s", "CPU, ms", "efficiency", "to plain", "p50, ms", "p90, ms", "p99, ms"),
    *("peak, MB", "busiest worker", "database, ms", "load, ms"),
)


def _rows(cell: dict) -> Iterator[tuple]:
    for name, figures in cell["servers"].items():
        yield (
            *(cell["call"], _NAMES[name], _spread(figures["requests_per_second"], 1, 0)),
            *(_spread(figures["cpu"], 1000), _spread(figures.get("efficiency")), _spread(figures.get("to_plain"))),
            *(_spread(figures[name], 1000, 1) for name in ("p50", "p90", "p99")),
            _spread(figures["memory"], 1e-6, 1),
            f"{100 * figures['busiest']['median']:.0f} %",
            _spread(figures["database_cpu"], 1000) if name == "postgresql" else "",
            f"{1000 * figures['load_cpu']['median']:.2f}",
        )


def _spread(of: dict | None, factor: float = 1, digits: int = 2) -> str:
    if of is None:
        return ""
    median, least, most = (f"{factor * of[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({least}–{most})"


def _growth(growth: dict) -> Iterator[str]:
    yield "## How cost grows"
    titles = (
        ("stored", "states stored"),
        ("clients", "clients"),
        ("workers", "workers"),
        ("tenants", "tenants, a pair of keys each"),
    )
    for what, title in titles:
        yield f"### With {title}\n\n{_points(growth[what], what)}"
    slopes = ", ".join(f"{name} {1e6 * value:.0f}" for name, value in growth["size"]["seconds_per_megabyte"].items())
    yield f"### With size, SQLite\n\n{_points(growth['size']['rows'], 'size')}"
    yield f"Slopes, µs of CPU per MB of content: {slopes} (a memory copy, and AES-CBC with HMAC over the token, alone)."
    rows = [(row["call"], _NAMES[row["server"]], f"{row['multiple']:.1f}") for row in growth["memory"]]
    yield "## Memory and start\n\n" + _table(rows, ("10 MB, one client", "server", "peak of the worker, × content"))
    rows = [
        (row["server"], _spread(row["seconds"]), _spread(row["rss"], 1e-6, 0), _spread(row["pss"], 1e-6, 0))
        for row in growth["start"]
    ]
    yield _table(rows, ("2 workers", "first answer after, s", "sum of RSS, MB", "sum of PSS, MB"))


def _points(rows: Iterable[dict], what: str) -> str:
    told = [
        (
            *(f"{row[what]:,}", row["call"], _spread(row["cpu"], 1000), _spread(row["requests_per_second"], 1, 0)),
            *(_spread(row[name], 1000) for name in ("p50", "p99")),
        )
        for row in rows
    ]
    return _table(told, (what, "call", "CPU, ms", "requests/s", "p50, ms", "p99, ms"))


def _table(rows: Iterable[tuple], headers: tuple[str, ...]) -> str:
    return tabulate(list(rows), headers, tablefmt="github", disable_numparse=True)
