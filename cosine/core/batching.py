"""Which of the requests that wait are verified in the next forward pass of the target.

First what a batch owes: whoever has been passed over `waited_count_max` times goes, the oldest first. Then rank by
rank: who of a priority goes is decided as if nobody of a lower priority waited. Within a rank those who would miss
their deadline by waiting go first, of the others the set that makes the pass cheapest (CoSine, arXiv 2503.10325; the
cost is argued in `passes.py`).

A deadline is a whole text's. Whose text this pass completes has the pass cut to what is left; whoever needs further
ones goes first while waiting would take more than its share of the time, and nobody is left out for it: where all have
deadlines and there is too much to do, smaller passes would make more of them late. Whoever would be late even alone is
treated as if it had none.

The oldest of those who are overdue always goes, and newcomers queue behind it: a request that finds n others waiting
is passed over at most `waited_count_max + n` times, whatever their priorities. It does not know how a batch is divided
(`decomposition.py`), nor sessions, trees, verifiers or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cosine.core.packing import cheapest
from cosine.core.passes import Candidate, Caps, Goal, LineTimes, PassLoad, VerifyTimes

__all__ = ["WEIGHT", "Candidate", "Caps", "LineTimes", "VerifyTimes", "choose"]

WEIGHT = 0.9  # from here on bench/batching.py gains little; below 1, since then the better of two passes goes first


def choose(waiting: Sequence[Candidate], times: VerifyTimes, caps: Caps, weight: float = WEIGHT) -> list[int]:
    """Indices of the next batch in order of service; empty only where nobody waits.

    `waiting` is in order of arrival. `weight` (0 to 1) is what the pass after this one counts for. A request over a cap
    goes all the same, alone: where it is overdue or its deadline presses, or where nobody else can go. Raises
    ValueError for a weight out of range.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight is {weight}; give one from 0 (this pass alone counts) to 1 (the next counts as much)")
    batch = _Batch(waiting, Goal(times, caps, weight))
    overdue = [index for index, candidate in enumerate(waiting) if candidate.waited_count >= caps.waited_count_max]
    batch.force(sorted(overdue, key=lambda index: -waiting[index].waited_count))
    priorities = [candidate.priority for candidate in waiting]
    for place, priority in enumerate(sorted(set(priorities), reverse=True)):
        batch.add_rank([index for index, its in enumerate(priorities) if its == priority], effort=0.5**place)
    if waiting and not batch.chosen:
        batch.force([max(range(len(waiting)), key=lambda index: (priorities[index], waiting[index].waited_count))])
    return batch.chosen


class _Batch:
    """A batch while it is put together: who goes, what the pass then holds, whom the ranks so far were about."""

    def __init__(self, waiting: Sequence[Candidate], goal: Goal) -> None:
        self.chosen: list[int] = []
        self._waiting = waiting
        self._goal = goal
        self._load = PassLoad()
        self._above: list[int] = []

    def force(self, indices: Iterable[int], in_time: bool = False) -> None:
        """Takes whoever fits, the first of a batch in any case; `in_time`: only if the pass then meets the deadline."""
        row_room = self._goal.caps.row_count_max - self._load.row_count
        for index in indices:
            candidate = self._waiting[index]
            if self.chosen and candidate.row_count > row_room:
                continue
            load = self._load.plus(candidate)
            late = in_time and self._goal.pass_ms(load) > candidate.limit_ms
            if not late and (not self.chosen or self._goal.fits(load)):
                self._take([index], load)
                row_room -= candidate.row_count

    def add_rank(self, rank: Sequence[int], effort: float) -> None:
        """Takes of requests of one priority those who cannot wait, and the cheapest set of the others."""
        room = self._goal.caps.row_count_max - self._load.row_count
        if not self.chosen or any(self._waiting[index].row_count <= room for index in rank):
            self._search(self._left_of(rank), effort)
        self._above += rank

    def _search(self, left: list[int], effort: float) -> None:
        if any(self._waiting[index].deadline_ms is not None for index in left):
            self.force(self._pressing(left), in_time=True)
            left = self._left_of(left)
        if left:
            candidates, behind = (
                [self._waiting[index] for index in rest] for rest in (left, self._left_of(self._above))
            )
            packing = cheapest(candidates, self._load, PassLoad.of(behind), self._goal, effort)
            self._take([left[position] for position in packing.taken], packing.load)

    def _left_of(self, rank: Sequence[int]) -> list[int]:
        chosen = set(self.chosen)
        return [index for index in rank if index not in chosen] if chosen else list(rank)

    def _take(self, indices: Sequence[int], load: PassLoad) -> None:
        """Adds to the batch. A deadline that it meets now, it must still meet with whoever is added later."""
        self.chosen += indices
        self._load = load
        limits = [self._waiting[index].limit_ms for index in indices if self._waiting[index].deadline_ms is not None]
        if limits:
            pass_ms, caps = self._goal.pass_ms(load), self._goal.caps
            least_ms = min([caps.latency_ms_max, *(limit_ms for limit_ms in limits if limit_ms >= pass_ms)])
            self._goal = replace(self._goal, caps=replace(caps, latency_ms_max=least_ms))

    def _pressing(self, rank: Sequence[int]) -> list[int]:
        """Who is in time alone but not after waiting for this pass: whose last it is before others, then who has the
        least time."""
        dated = [index for index in rank if self._waiting[index].deadline_ms is not None]
        whole = self._load
        for index in rank:
            whole = whole.plus(self._waiting[index])
        whole = whole._replace(row_count=min(whole.row_count, self._goal.caps.row_count_max))
        patience_ms = min(self._goal.caps.latency_ms_max, self._goal.pass_ms(whole))
        alone_ms = {index: self._goal.pass_ms(PassLoad().plus(self._waiting[index])) for index in dated}
        shares = {index: self._waiting[index].share_ms for index in dated}
        pressing = [index for index in dated if alone_ms[index] <= shares[index] < patience_ms + alone_ms[index]]
        return sorted(pressing, key=lambda index: (self._waiting[index].pass_count > 1, shares[index]))
