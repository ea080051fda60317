"""``python -m tests.fuzz [TARGET …]``: fuzz every target, or these, for FUZZ_SECONDS of CPU each, one after the other.

What is new in coverage is merged into ``corpus/``; the table of the run is written to ``results.md``. An input that
breaks a promise is left in ``found/``, and the exit status is 1.
"""

import json
import math
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
_MOST_BYTES = 16384  # of one input
_HEADERS = (
    "target",
    "s of CPU",
    "inputs",
    "coverage",
    "corpus",
    "slowest, ms",
    "most above base, MB",
    "peak RSS, MB",
    "found",
)


def _program(folder: Path, name: str) -> Path:
    """Return a script in ``folder`` that fuzzes ``name``; it takes libFuzzer's arguments."""
    path = folder / name
    command = shlex.join([sys.executable, "-m", "tests.fuzz.one", str(path), name])
    path.write_text(f'#!/bin/sh\nexec {command} -max_len={_MOST_BYTES} -timeout=5 "$@"\n')
    path.chmod(0o700)
    return path


def _run(program: Path, *arguments: object, seconds: float = math.inf) -> str:
    """Return what libFuzzer told; it ends after ``seconds`` of CPU."""
    command, limit = [program, *map(str, arguments)], os.environ | {"FUZZ_SECONDS": str(seconds)}
    run = subprocess.run(command, env=limit, capture_output=True, text=True, errors="replace", check=False)
    return run.stderr


def fuzz(name: str, seconds: int) -> dict:
    """Fuzz ``name`` for ``seconds`` of CPU, merge what it found into its corpus; return a line of the table."""
    corpus, found = HERE / "corpus" / name, HERE / "found"
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    spent = _processor_time()
    with tempfile.TemporaryDirectory() as folder:
        program, new, merged = _program(Path(folder), name), Path(folder, "new"), Path(folder, "merged")
        new.mkdir()
        merged.mkdir()
        prefix = f"-artifact_prefix={found}/{name}-"
        words = f"-dict={HERE / 'words.dict'}"
        told = _run(program, "-print_final_stats=1", words, prefix, new, corpus, seconds=seconds)
        spent = _processor_time() - spent
        _run(program, "-merge=1", "-set_cover_merge=1", "-use_counters=0", f"{prefix}merge-", merged, corpus, new)
        if any(merged.iterdir()):
            shutil.rmtree(corpus)
            shutil.copytree(merged, corpus)
    costs_file = found / f"{name}-costs.json"
    costs = json.loads(costs_file.read_text())
    for file in found.glob(f"{name}-*costs.json"):
        file.unlink()
    broken = sorted(file.name for file in set(found.iterdir()) - before)
    for line in told.splitlines()[-40:] if broken else ():
        print(line, file=sys.stderr)
    return _line(name, told, spent, costs, len(list(corpus.iterdir())), broken)


def _line(name: str, told: str, spent: float, costs: dict, files: int, broken: list[str]) -> dict:
    covered = [int(number) for number in re.findall(r" cov: (\d+)", told)]
    executed = re.search(r"number_of_executed_units:\s*(\d+)", told)
    peak = re.search(r"peak_rss_mb:\s*(\d+)", told)
    return dict(
        zip(
            _HEADERS,
            (
                *(name, round(spent), int(executed[1]) if executed else 0, f"{covered[0]} → {covered[-1]}", files),
                *(f"{1000 * costs['seconds']:.1f}", f"{costs['grown'] / 2**20:.1f}", int(peak[1]) if peak else 0),
                ", ".join(broken) or "–",
            ),
            strict=True,
        )
    )


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Fuzz what the command line names."""
    names = sys.argv[1:] or list(TARGETS)
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    lines = []
    for name in names:
        lines.append(fuzz(name, seconds))
        table = tabulate(lines, headers="keys", tablefmt="github")
        (HERE / "results.md").write_text(f"# Fuzzing, {seconds:g} s of CPU for each target\n\n{table}\n")
        print(tabulate([lines[-1]], headers="keys"), flush=True)
    sys.exit(any(line["found"] != "–" for line in lines))


if __name__ == "__main__":
    main()
