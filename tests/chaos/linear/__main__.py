"""``python -m tests.chaos.linear``: records histories of contended keys on each store and judges them."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import STORES
from tests.chaos.linear.contest import contest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.linear", description=__doc__)
    parser.add_argument("--store", help=f"only these of {', '.join(STORES)}")
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kill-every", type=float, nargs="*", default=[0, 0.5], help="seconds; 0: no worker is killed")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    print(f"seed {seed}")
    status = 0
    for store in options.store.split(",") if options.store else STORES:
        for kill_every in options.kill_every:
            folder = Path(tempfile.mkdtemp(prefix="linear-"))
            found = contest(store, folder, options.operations, seed, kill_every, options.clients)
            print(found, flush=True)
            if not found.holds:
                print(f"  the history: {folder}/history.jsonl")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
