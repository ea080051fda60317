"""``python -m tests.chaos.soak``: good and hostile traffic for hours, and whether anything grows meanwhile. ``make soak``.

Exit status: 0 when nothing grows, 1 when memory, descriptors, threads or the run folder grow significantly and by 5 % or
more, or when a good request went wrong; 2 when the run itself could not be done. Below an hour, heaps have not filled:
then it takes more growth, 30 % in ten minutes and 50 % in one.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from receiver.mock_platform.keys import new_store as new_keys
from tests.chaos.faults import STORES, Fault
from tests.chaos.soaking.picture import page
from tests.chaos.soaking.samples import FIGURES, sample
from tests.chaos.soaking.slopes import slope_of
from tests.chaos.soaking.traffic import Good, Hostile
from tests.chaos.stores import new_store
from tests.chaos.subject import Subject, environment_of, running
from tests.support.waiting import pass_time

_GROWTH = 0.05
_SAMPLES = 200
_CLIENTS = 4


@dataclass(frozen=True)
class Soak:
    """A soak to do: on which ``store``, for how many ``seconds``, with which ``program`` as the receiver."""

    store: str
    seconds: float
    program: tuple[str, ...] = ("receiver",)
    clients: int = _CLIENTS
    is_hostile: bool = True

    @property
    def share(self) -> float:
        """The growth that counts: a twentieth, and more where the time is too short for heaps to have filled."""
        return max(_GROWTH, min(0.5, _GROWTH * 3600 / self.seconds))

    @property
    def settled(self) -> float:
        """The seconds after which figures count: pools, caches and heaps fill first, and each attack came once."""
        return min(1800.0, self.seconds / 3)


def soak(plan: Soak, folder: Path) -> dict:
    """Do ``plan`` in ``folder``; return what was found, as JSON has it."""
    keys = new_keys()
    with new_store(plan.store, folder / "store") as store:
        subject = Subject(Fault(), store, folder, keys, environment_of(store, keys, folder, Fault.workers))
        subject.program[1:] = ["-m", *plan.program]
        subject.environment["STORAGE_LOG_LEVEL"] = "warning"
        with running(subject):
            receiver = subject.receivers[0]
            good = [Good(receiver.url, keys, number) for number in range(plan.clients)]
            hostile = Hostile(receiver.url, keys, min(1.0, plan.settled / 60))
            samples = _sampled(plan, subject, good, hostile)
    return as_json(plan, samples, good, hostile, [end.what for end in subject.ends])


def _sampled(plan: Soak, subject: Subject, good: list[Good], hostile: Hostile) -> list[dict]:
    """Let all clients go on for the time of ``plan``; return what was sampled."""
    clients, samples = [*good, hostile], []
    began = time.monotonic()
    for one in clients if plan.is_hostile else good:
        one.start()
    try:
        while (now := time.monotonic()) < began + plan.seconds:
            pass_time(min(plan.seconds / _SAMPLES, began + plan.seconds - now), "figures are taken at even distances")
            seconds = [value for one in good for value in one.taken()]
            samples.append(
                sample(subject.receivers[0].family(), subject.folder / "store", subject.folder / "run", seconds)
            )
    finally:
        for one in clients:
            one.done.set()
        for one in clients:
            if one.ident:
                one.join(90)
            one.client.close()
    return samples


def as_json(plan: Soak, samples: list[dict], good: list[Good], hostile: Hostile, ends: list[str]) -> dict:
    """Return the figures and the verdict of a soak."""
    settled = [one for one in samples if one["at"] - samples[0]["at"] >= plan.settled]
    times = [one["at"] for one in settled]
    slopes = {}
    for name, (_, counts) in FIGURES.items():
        slope = slope_of(times, [one[name] for one in settled])
        slopes[name] = asdict(slope) | {"fails": counts and slope.is_growth(plan.share)}
    failures = [f"{name} grows by {one['growth']:.1%}" for name, one in slopes.items() if one["fails"]]
    failures += [text for client in (*good, hostile) for text in client.wrong[:5]] + ends
    if plan.is_hostile and not hostile.rounds:
        failures.append("not every attack was tried")
    return {
        "store": plan.store,
        "seconds": plan.seconds,
        "settled": plan.settled,
        "good": sum(sum(one.statuses.values()) for one in good),
        "hostile": sum(hostile.statuses.values()),
        "rounds": hostile.rounds,
        "statuses": {
            "good": dict(sum((one.statuses for one in good[1:]), good[0].statuses)),
            "hostile": dict(hostile.statuses),
        },
        "slopes": slopes,
        "failures": failures,
        "samples": samples,
    }


def told(found: dict) -> list[str]:
    """Return the lines about a soak for the terminal."""
    lines = [
        f"{found['store']}, {found['seconds']:.0f} s: {found['good']} good requests, {found['hostile']} hostile ones: {found['statuses']}"
    ]
    for name, one in found["slopes"].items():
        interval = f"{one['least']:+.3g} … {one['most']:+.3g}"
        mark = "  GROWS" if one["fails"] else ""
        lines.append(
            f"  {name:12} {one['level']:14,.4g} {one['per_hour']:+12,.3g}/h  ({interval}), {one['growth']:+.1%} in the run{mark}"
        )
    return [*lines, *(f"  failure: {text}" for text in found["failures"])]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1 / 6, help="how long; by default ten minutes")
    parser.add_argument("--store", default="sqlite", choices=STORES)
    parser.add_argument("--good-only", action="store_true", help="without hostile traffic, to tell what it adds")
    parser.add_argument("--out", help="folder for the report")
    options = parser.parse_args()
    folder = Path(options.out or tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = soak(Soak(options.store, 3600 * options.hours, is_hostile=not options.good_only), folder)
    except (RuntimeError, ValueError, AssertionError) as failure:
        print(f"not done: {failure}", file=sys.stderr)
        return 2
    print("\n".join(told(found)))
    (folder / "soak.json").write_text(json.dumps(found))
    (folder / "soak.html").write_text(page(found))
    print(f"report: {folder}/soak.html")
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
