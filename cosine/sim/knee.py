"""Where a curve over scale bends, and by which power of the scale a cost grows. It knows nothing of what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

SATURATED = 0.95
EFFICIENT = 0.8


def saturation(counts: Sequence[int], rates: Sequence[float]) -> int | None:
    """The first count that brings `SATURATED` of the best rate; None where that is the last, so that it still grows."""
    enough = next(count for count, rate in zip(counts, rates, strict=True) if rate >= SATURATED * max(rates))
    return None if enough == counts[-1] else enough


def efficiency(counts: Sequence[int], rates: Sequence[float]) -> int | None:
    """The last count up to which the rate per count is at least `EFFICIENT` of the first's; None where it always is."""
    first = rates[0] / counts[0]
    last = None
    for count, rate in zip(counts, rates, strict=True):
        if rate / count < EFFICIENT * first:
            return last
        last = count
    return None


def exponent(counts: Sequence[float], costs: Sequence[float]) -> float:
    """The power of the count that a cost follows: the slope of the straight line through their logarithms, by least
    squares. Wants two counts at least, and no zeros."""
    places = [math.log(count) for count in counts]
    heights = [math.log(cost) for cost in costs]
    middle, level = sum(places) / len(places), sum(heights) / len(heights)
    spread = sum((place - middle) ** 2 for place in places)
    return sum((place - middle) * (height - level) for place, height in zip(places, heights, strict=True)) / spread
