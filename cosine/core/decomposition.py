"""A ragged batch in passes of similar length, where padding to the longest costs more than a further pass.

The idea is that of SPIN (arXiv 2503.15921), request decomposition, one step further out: SPIN cuts long requests into
pieces inside one attention call; here the batch is cut between requests, into passes of their own, which asks nothing
of the engine. It does not know who is in the batch and why (`batching.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from cosine.core.packing import widest_gaps
from cosine.core.passes import Candidate, VerifyTimes

CUTS_MAX = 48
ROUNDING = 1e-9


def decompose(batch: Sequence[Candidate], times: VerifyTimes) -> list[list[int]]:
    """Groups of indices for separate passes of the least total time; within a group in the order given.

    By `times` the passes never take longer in total than one would, and equal totals are not split. The group of the
    least time per expected token comes first. Groups are runs of the requests sorted by length (no other groups do
    better where the longest is all that a pass is padded to); among more than `CUTS_MAX` different lengths they end
    at the widest gaps only.
    """
    order = sorted(range(len(batch)), key=lambda index: batch[index].length)
    lengths = [batch[index].length for index in order]
    rows = [0, *itertools.accumulate(batch[index].row_count for index in order)]
    worths = [0.0, *itertools.accumulate(batch[index].worth for index in order)]

    def pass_ms(start: int, end: int) -> float:
        return times.verify_ms(end - start, lengths[end - 1], rows[end] - rows[start])

    cuts = widest_gaps(np.array(lengths), CUTS_MAX)
    ends = [0, *np.searchsorted(lengths, cuts, side="right").tolist()]
    runs = sorted(_cheapest_runs(ends, pass_ms), key=lambda run: pass_ms(*run) / (worths[run[1]] - worths[run[0]]))
    return [sorted(order[start:end]) for start, end in runs]


def _cheapest_runs(ends: Sequence[int], pass_ms: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Runs from the first end to the last, as (start, end), whose times have the least sum; of equal sums the one of
    the longest runs. By dynamic programming over the ends."""
    least_ms = [0.0]
    starts = [0]
    for place in range(1, len(ends)):
        sums = [least_ms[start] + pass_ms(ends[start], ends[place]) for start in range(place)]
        enough_ms = min(sums) * (1 + ROUNDING)
        starts.append(next(start for start in range(place) if sums[start] <= enough_ms))
        least_ms.append(sums[starts[place]])
    runs = []
    place = len(ends) - 1
    while place:
        runs.append((ends[starts[place]], ends[place]))
        place = starts[place]
    return runs
