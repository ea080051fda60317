"""Builds the Go program of this folder and asks it whether a history is linearizable."""

import functools
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Verdict:
    """What the program says: ``verdict`` is Ok, Illegal or Unknown; the rest as main.go's result has it."""

    verdict: str
    operations: int
    keys: int
    unknown: int
    open: int
    seconds: float
    bad: list[str]
    pages: list[str]

    def __str__(self) -> str:
        found = {"Ok": "linearizable", "Illegal": "NOT linearizable", "Unknown": "not judged in time"}[self.verdict]
        ending = f"; see {', '.join(self.pages)}" if self.pages else ""
        return (
            f"{self.operations} operations on {self.keys} keys, {self.unknown} of unknown outcome: {found}"
            f" ({self.seconds:.2f} s){ending}"
        )


@functools.cache
def program() -> Path:
    """Return the built program; it is built once for its sources, which needs the network only the very first time."""
    sources = [*sorted(FOLDER.glob("*.go")), FOLDER / "go.mod", FOLDER / "go.sum"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    built = ROOT / "build" / f"linear-{digest}"
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        mine = built.with_name(f"linear-{os.getpid()}")
        subprocess.run(["go", "build", "-o", mine, "."], cwd=FOLDER, check=True, timeout=300)
        mine.rename(built)
    return built


def judge(path: Path, seconds: int = 120, most_open: int = 12) -> Verdict:
    """Return the verdict on the history in the file ``path``; the pages of bad keys lie beside it."""
    command = [program(), f"-timeout={seconds}s", f"-open={most_open}", f"-pages={path.parent}", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    if not done.stdout:
        raise ValueError(f"no verdict on {path}: {done.stderr}")
    return Verdict(**json.loads(done.stdout))
