"""``python -m tests.fuzz.one PROGRAM TARGET [libFuzzer's arguments]``: one target in this process, until it is told to stop.

PROGRAM is what libFuzzer starts for its merge, with its arguments alone: a script that runs this.
"""

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["receiver", "gunicorn.http"]):
    from tests.fuzz.limits import Measured
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz for FUZZ_SECONDS of CPU. A crash leaves its input where ``-artifact_prefix`` says, costs ``<prefix>costs.json``."""
    program, name, *arguments = sys.argv[1:]
    prefix = next((one.partition("=")[2] for one in arguments if one.startswith("-artifact_prefix=")), "")
    last = float(os.environ.get("FUZZ_SECONDS", "inf"))
    target = Measured(TARGETS[name], Path(f"{prefix}costs.json") if prefix else None, last)
    atheris.Setup([program, *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
