"""``python -m tests.bench``: the whole run."""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import click

from receiver.mock_platform.keys import new_store
from tests.bench import cells, charts, growth, machine, report
from tests.bench.requests import CALLS, SIZES
from tests.bench.servers import STORES, House
from tests.support import servers as databases

_TOLD = ("GET", "POST", "DELETE", "mixed")  # the order of the report; that of the run is the states' life
_BEGAN = time.monotonic()
_HERE = Path(__file__).parent


def _list_of(*known: str):
    """Return a parser of comma-separated names; those that are left out are not run."""

    def parse(_context: object, _parameter: object, value: str) -> list[str]:
        wanted = [one.strip() for one in value.split(",")]
        unknown = [one for one in wanted if one not in known]
        if unknown:
            raise click.BadParameter(f"{unknown[0]!r} is none of: {', '.join(known)}")
        return [one for one in known if one in wanted]

    return parse


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--stores", default=",".join(STORES), show_default=True, callback=_list_of(*STORES))
@click.option("--calls", default=",".join(CALLS), show_default=True, callback=_list_of(*CALLS))
@click.option("--sizes", default=",".join(SIZES), show_default=True, callback=_list_of(*SIZES))
@click.option("--clients", default=16, show_default=True, help="Connections at once.")
@click.option("--workers", default=2, show_default=True, help="Processes of each server.")
@click.option("--scale", default=1.0, show_default=True, help="Share of the usual number of requests.")
@click.option("--growth/--no-growth", "with_growth", default=True, help="How cost grows, memory and start-up.")
@click.option("--floor-worker", type=click.Choice(["gthread", "receiver"]), default="gthread", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=_HERE / "results", show_default="tests/bench/results")
@click.option("--quick", is_flag=True, help="A look at whether it works: one round, 7 KB, SQLite, few requests.")
def main(quick: bool, out: Path, with_growth: bool, floor_worker: str, **options: object) -> None:
    """Measure the receiver beside a floor and a plain server, and write tables and charts to --out."""
    if quick:
        options |= {"rounds": 1, "stores": ["sqlite"], "sizes": ["7 KB"], "scale": 0.1}
        with_growth = False
    worker = "receiver.server.worker.Worker" if floor_worker == "receiver" else "gthread"
    result = {"machine": machine.describe(), "options": options | {"floor_worker": floor_worker}}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
        house = House(Path(folder), new_store(), options["workers"])
        if "postgresql" in options["stores"]:
            _say("starting PostgreSQL")
            house.postgres = stack.enter_context(databases.postgresql("fsync=on"))
            result["machine"]["PostgreSQL"] = house.postgres.execute("show server_version")[0][0]
        result["cells"] = _main_table(house, worker, options)
        result["seconds"] = time.monotonic() - _BEGAN
        _write(result, out)  # whatever becomes of the rest
        if with_growth:
            result["growth"] = growth.run(house, options["stores"], options["clients"], _say)
    result["seconds"] = time.monotonic() - _BEGAN
    _write(result, out)
    _say(f"written to {out} after {result['seconds']:.0f} s")


def _main_table(house: House, worker: str, options: dict) -> list[dict]:
    stocks = []
    for size in options["sizes"]:
        _say(f"making states of {size}")
        stocks.append(cells.stock(size, house.keys, options["scale"]))
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(house.receiver(store)) for store in options["stores"]]
        servers.append(
            stack.enter_context(house.floor({of.platform.tenant: of.floor_sizes() for of in stocks}, worker))
        )
        servers.append(stack.enter_context(house.plain()))
        for of in stocks:
            for server in servers:
                if server.name != "floor":
                    cells.check(server, of)
        rounds = options["rounds"], options["clients"]
        found = [cells.summarise(cell) for cell in cells.run_rounds(servers, stocks, options["calls"], *rounds, _say)]
    sizes = list(SIZES)
    return sorted(found, key=lambda cell: (sizes.index(cell["size"]), _TOLD.index(cell["call"])))


def _write(result: dict, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "bench.md").write_text(report.markdown(result))
    (out / "efficiency.svg").write_text(charts.efficiency(result))
    if "growth" in result:
        (out / "growth.svg").write_text(charts.growth(result))


def _say(text: str) -> None:
    print(f"{time.monotonic() - _BEGAN:5.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
