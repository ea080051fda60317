"""``python -m tests.chaos.damage``: damages stores on a disk in every way, and tells what the receiver answers then."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.damage.kinds import RESTART, RUNNING, all_damage
from tests.chaos.damage.trial import try_out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.damage", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "file"))
    parser.add_argument("--only", default="", help="kinds whose name has one of these texts, separated by commas")
    parser.add_argument("--when", choices=(RUNNING, RESTART))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    status, number = 0, 0
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        for damage in all_damage():
            if options.store in (None, damage.store) and any(text in damage.name for text in options.only.split(",")):
                for when in (options.when,) if options.when else damage.when:
                    number += 1
                    try:
                        outcome = try_out(damage, when, Path(folder) / str(number), options.seed)
                    except Exception as failure:
                        print(
                            f"{damage.store:6} {damage.name}, {when}: NOT DONE: {type(failure).__name__}: {failure}",
                            flush=True,
                        )
                        status = 2
                        continue
                    print(outcome, flush=True)
                    status = max(status, int(outcome.is_bad))
    return status


if __name__ == "__main__":
    sys.exit(main())
