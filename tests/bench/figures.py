"""The arithmetic of the bench: plain numbers in, plain numbers out."""

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most of ``values``, one of each round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return the spread of ``over`` / ``under``, divided round by round: both ran at the same time of the run."""
    return spread([one / other for one, other in zip(over, under, strict=True)])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much y grows with x in ``points`` (x, y), by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope
