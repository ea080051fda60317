"""Slopes with a confidence interval, of figures that were sampled over time.

Samples that follow each other are alike, so that plain least squares would be far too sure. The samples are cut into
consecutive blocks, each block counts as one value, its median, and an ordinary least squares line is laid through
those. Its interval is Student's t with two degrees of freedom less than blocks. Medians also keep out the peak that a
single hostile request makes.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 10
# The 0.975 quantile of Student's t by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}


@dataclass(frozen=True)
class Slope:
    """The line through a figure: its ``level`` at the beginning, ``per_hour``, and the 95 % interval of that.

    ``growth`` is what the line gains within the samples, as a share of ``level``.
    """

    level: float
    per_hour: float
    least: float
    most: float
    growth: float

    def is_growth(self, share: float) -> bool:
        """Whether it grows significantly, and by at least ``share`` of its level."""
        return self.least > 0 and self.growth >= share


def slope_of(times: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Return the slope of ``values`` at ``times`` (seconds); raises ValueError for too few."""
    if len(times) < 3 or len(times) != len(values):
        raise ValueError(f"{len(times)} samples are too few")
    count = min(blocks, len(times))
    cuts = [len(times) * number // count for number in range(count + 1)]
    parts = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    moments = [statistics.fmean(times[part]) for part in parts]
    medians = [statistics.median(values[part]) for part in parts]
    middle, mean = statistics.fmean(moments), statistics.fmean(medians)
    spread = sum((at - middle) ** 2 for at in moments)
    slope = sum((at - middle) * (value - mean) for at, value in zip(moments, medians, strict=True)) / spread
    level = mean + slope * (times[0] - middle)
    left = sum((value - mean - slope * (at - middle)) ** 2 for at, value in zip(moments, medians, strict=True))
    error = _T[min(10, count - 2)] * math.sqrt(left / (count - 2) / spread)
    growth = slope * (times[-1] - times[0]) / level if level > 0 else (math.inf if slope > 0 else 0.0)
    return Slope(level, 3600 * slope, 3600 * (slope - error), 3600 * (slope + error), growth)
