"""The sizes of states: a distribution to draw from, and its chart."""

import bisect
import math
import random

# The share of states up to that many bytes; between two rows the logarithm of the size is linear. The figures are
# invented: most states are a form or two, some contain lists from a service, and a few contain whole documents.
_QUANTILES = ((0.0, 6 << 10), (0.5, 24 << 10), (0.9, 160 << 10), (0.99, 1 << 20), (1.0, 6 << 20))
_BAR = 40  # characters of the longest bar


def draw(chance: random.Random) -> int:
    """Return a size in bytes, from 6 KiB to 6 MiB."""
    share = chance.random()
    row = bisect.bisect_right(_QUANTILES, share, key=lambda quantile: quantile[0])
    (low, least), (high, most) = _QUANTILES[row - 1 : row + 1]
    size: float = least * (most / least) ** ((share - low) / (high - low))
    return round(size)


def chart(seed: int = 1, count: int = 10_000) -> str:
    """Return a text chart of ``count`` drawn sizes: one row for each doubling, with its share of the states."""
    chance = random.Random(seed)  # noqa: S311 - made-up data, not a secret
    rows: dict[int, int] = {}
    for _ in range(count):
        exponent = int(math.log2(draw(chance)))
        rows[exponent] = rows.get(exponent, 0) + 1
    longest = max(rows.values())
    return "\n".join(
        f"{_size(exponent):>8} – {_size(exponent + 1):>7}  {100 * rows.get(exponent, 0) / count:5.1f} %  "
        f"{'█' * max(1, round(_BAR * rows.get(exponent, 0) / longest))}"
        for exponent in range(min(rows), max(rows) + 1)
    )


def _size(exponent: int) -> str:
    return f"{1 << exponent - 20} MiB" if exponent >= 20 else f"{1 << exponent - 10} KiB"
