"""Power cuts of a receiver that served a load: the images of its recording, against the journal of its clients.

The recorder and the clients have the same clock. What was answered before an event happened before it.
"""

import contextlib
import multiprocessing
import random
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from receiver.problems import Problem
from receiver.stores import open_store
from tests.chaos.contents import digest_of
from tests.chaos.model import Key, judged
from tests.chaos.powercut.disk import HOW, Disk, Image, write
from tests.chaos.powercut.run import points_of
from tests.chaos.shim import events

_FORK = multiprocessing.get_context("fork")
Keys = Mapping[tuple[str, str], Key]
Wrong = tuple[float, str]  # when the power was cut, and what was wrong then


def wrong_images(log: Path, url: str, keys: Keys, seed: int, images: int, folder: Path) -> tuple[int, list[Wrong]]:
    """Check about ``images`` images of ``log``; return how many there were, and what was wrong.

    ``url`` is that of the store, with "{root}" for the folder that was watched.
    """
    points = points_of(log, images, seed)
    with ProcessPoolExecutor(2, _FORK) as pool:
        shares = [(log, url, keys, seed, points[one::2], folder / f"images-{one}") for one in range(2)]
        found = list(pool.map(_share, *zip(*shares, strict=True)))
    return sum(count for count, _ in found), sorted(wrong for _, some in found for wrong in some)


def _share(log: Path, url: str, keys: Keys, seed: int, points: Sequence[int], folder: Path) -> tuple[int, list[Wrong]]:
    disk, wanted, count, found = Disk(seed), set(points), 0, []
    for number, event in enumerate(events(log)):
        if number in wanted:
            at = event.nanoseconds / 1e9
            for variant, how in enumerate(HOW):
                image = disk.image(random.Random(f"{seed} {number} {variant}"), how)
                count += 1
                found += [(at, f"image {number}.{variant}: {text}") for text in _wrong(image, url, keys, at, folder)]
        disk.see(event)
    return count, found


def _wrong(image: Image, url: str, keys: Keys, at: float, folder: Path) -> list[str]:
    """Return what is wrong with the store in ``image``, the first of it."""
    folder.mkdir()
    try:
        write(image, folder)
        with contextlib.closing(open_store(url.replace("{root}", str(folder)), 5)) as store:
            store.prepare()
            held = {(state.tenant, state.id): digest_of(state.content.text) for state in store.scan()}
    except Problem as problem:
        return [f"{type(problem).__name__}: {problem.cause}"]
    finally:
        shutil.rmtree(folder)
    wrong = [
        f"{id}: {check}"
        for (tenant, id), key in keys.items()
        if (check := judged(key, held.pop((tenant, id), ""), at, at, True))
    ]
    return [*wrong, *(f"{id}: nobody saved it" for _, id in held)][:1]
