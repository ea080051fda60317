"""A run: the points of a recording at which the power is cut, the images there, and what their checks found."""

import multiprocessing
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.powercut.checking import check
from tests.chaos.powercut.disk import HOW, Disk, Image, write
from tests.chaos.powercut.history import History
from tests.chaos.powercut.recording import Orders, record, url_in
from tests.chaos.shim import Event, events, on_memory

_EARLY = 80  # events of a process that count as its start
_IMAGES_A_POINT = 7  # that differ, of the ten that are made
_PROCESSES = 2
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Fault:
    """What was ``wrong`` with an image: that of ``point`` (an event's number), ``variant`` and ``how``.

    ``at`` is the moment of that event, in seconds since the recording began.
    """

    point: int
    variant: int
    how: str
    at: float
    acknowledged: int
    wrong: Sequence[str]

    @property
    def kind(self) -> str:
        return self.wrong[0].partition(":")[0]


@dataclass
class Result:
    """What came of a run: ``images`` that differ, at so many ``points``; ``acknowledged`` are the changes of the recording."""

    orders: Orders
    points: int = 0
    images: int = 0
    acknowledged: int = 0
    acknowledged_states: int = 0
    faults: list[Fault] = field(default_factory=list)
    refusals: Counter = field(default_factory=Counter)
    recorded_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """The images in which something acknowledged is missing."""
        return sum(any(text.startswith(("lost", "receipt lost")) for text in fault.wrong) for fault in self.faults)


def run(orders: Orders, images: int, processes: int = _PROCESSES) -> Result:
    """Record, and check about ``images`` images."""
    with on_memory("powercut-") as folder:
        began = time.monotonic()
        log = record(orders, folder)
        result = Result(orders, recorded_seconds=time.monotonic() - began)
        points = points_of(log, images, orders.seed)
        result.points = len(points)
        began = time.monotonic()
        shares = [(log, orders, points[one::processes], folder / f"images-{one}") for one in range(processes)]
        if processes == 1:
            found = [_share(*shares[0])]
        else:
            # No multiprocessing.Pool: it ends by SIGTERM, which a process may have handled when it was forked.
            with ProcessPoolExecutor(processes, _FORK) as pool:
                found = list(pool.map(_share, *zip(*shares, strict=True)))
        result.seconds = time.monotonic() - began
        for count, faults, acknowledged, refusals in found:
            result.images += count
            result.faults += faults
            result.acknowledged, result.acknowledged_states = acknowledged
            result.refusals = refusals
        result.faults.sort(key=lambda fault: (fault.point, fault.variant))
        return result


def points_of(log: Path, images: int, seed: int) -> list[int]:
    """Return the numbers of the events before which the power is cut.

    A quarter are soon after a start, the first above all; a quarter are steps of checkpoints, starts and ends; the others
    are anywhere.
    """
    found = list(events(log))
    places = [number for number, event in enumerate(found) if event.kind not in ("mark", "index")] + [len(found)]
    starts = {event.process: number for number, event in reversed(list(enumerate(found)))}
    early = [number for number in places if any(0 <= number - start < _EARLY for start in starts.values())]
    rare = [number for number in places[:-1] if _is_rare(found[number])]
    chance = random.Random(f"{seed} points")
    wanted = max(1, images // _IMAGES_A_POINT)
    chosen = {*chance.sample(early, min(len(early), wanted // 4)), *chance.sample(rare, min(len(rare), wanted // 4))}
    return sorted({*chosen, *chance.sample(places, min(len(places), wanted - len(chosen)))})


def _is_rare(event: Event) -> bool:
    """Whether this is a step of a checkpoint, a start or an end: the moments that chance alone would seldom meet."""
    if event.path.endswith(".db") or (event.kind in ("create", "unlink", "resize") and "-wal" in event.path):
        return True
    return event.kind in ("mkdir", "rmdir")


def _share(
    log: Path, orders: Orders, points: Sequence[int], folder: Path
) -> tuple[int, list[Fault], tuple[int, int], Counter]:
    """Check the images of some points; one of the processes of a run."""
    disk, history, count, faults = Disk(orders.seed), History(), 0, []
    wanted, began, at = set(points), 0, 0.0
    for number, event in enumerate([*events(log), None]):
        if event:
            began = began or event.nanoseconds
            at = (event.nanoseconds - began) / 1e9
        if number in wanted:
            done, found = _at(disk, history, orders, number, round(at, 3), folder)
            count += done
            faults += found
        if event and event.kind == "mark":
            history.see(event.data)
        if event:
            disk.see(event)
    acknowledged = history.acknowledged, history.acknowledged_states
    return count, faults, acknowledged, Counter(text.partition(":")[0] for text in history.failures)


def _at(disk: Disk, history: History, orders: Orders, point: int, at: float, folder: Path) -> tuple[int, list[Fault]]:
    """Check the images of one point; return how many there are, and what was wrong."""
    seen, faults = set(), []
    for variant, how in enumerate((*HOW, "subset", "prefix")):
        image = disk.image(random.Random(f"{orders.seed} {point} {variant}"), how)
        key = _digest(image)
        if key in seen:
            continue
        seen.add(key)
        wrong = check_image(image, orders, history, folder, random.Random(f"{orders.seed} {point} {variant} check"))
        if wrong:
            faults.append(Fault(point, variant, how, at, history.acknowledged, wrong))
    return len(seen), faults


def check_image(image: Image, orders: Orders, history: History, folder: Path, chance: random.Random) -> list[str]:
    """Write ``image`` into ``folder``, which is removed afterwards, and return what is wrong with it."""
    folder.mkdir()
    try:
        write(image, folder)
        return check(url_in(orders.store, folder), history, chance)
    finally:
        shutil.rmtree(folder)


def _digest(image: Image) -> tuple:
    return tuple((path, content and content.digest) for path, content in sorted(image.items()))


def image_of(log: Path, orders: Orders, point: int, variant: int) -> tuple[Image, History]:
    """Return the image of a Fault again, and the history up to there."""
    disk, history = Disk(orders.seed), History()
    for number, event in enumerate(events(log)):
        if number == point:
            break
        if event.kind == "mark":
            history.see(event.data)
        disk.see(event)
    how = (*HOW, "subset", "prefix")[variant]
    return disk.image(random.Random(f"{orders.seed} {point} {variant}"), how), history
