"""The cheapest set of requests for one forward pass, of all that wait (cost and caps: `passes.py`).

Without caps on rows and tokens this is a ratio to minimise, with them a knapsack, and the longest request and the
slowest drafting count for the whole batch. CoSine (arXiv 2503.10325) solves a linear program. Here the limits on length
and drafting are swept, up to each limit requests are taken in order of the time they add to the pass per token they
bring, and where few go single ones are exchanged: a heuristic, whose gap to enumeration the tests bound. It does not
know who must go whatever it costs (`batching.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosine.core.passes import WORTH_MIN, Candidate, Goal, PassLoad, Tables

ORDERS_MAX = 16
TABLE_SIZE = 256  # candidates times orders, where few candidates allow more orders
DRAFT_CUTS_MAX = 4
REFUSALS_MAX = 8
TRIALS_MAX = 192
GLANCES_PER_TRIAL = 12  # looking at a candidate that has no room takes so much less time than trying one
SEED_BATCH_MAX = 16
TINY = 1e-9

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Packing:
    """Positions of the candidates to take, and what a pass with them holds."""

    taken: list[int]
    load: PassLoad


def cheapest(
    candidates: Sequence[Candidate], base: PassLoad, behind: PassLoad, goal: Goal, effort: float = 1.0
) -> Packing:
    """Whom to add to a pass that holds `base` already, where `behind` is left behind in any case.

    Nobody is taken where nobody fits, and beside a base also where everybody costs more than they are worth. `effort`
    scales the time that the search takes.
    """
    search = _Search(candidates, base, behind, goal, effort)
    best = search.nothing()
    fits = search.fits_alone()
    if fits.any():
        swept, order = _cheapest_prefix(search, fits)
        swept = search.filled(swept, order)
        best = min(best, swept, key=_preference)
        if len(swept.taken) <= min(SEED_BATCH_MAX, len(candidates) - 1):
            best = min(best, search.seeded(swept.taken, order), key=_preference)
    return Packing(best.taken, best.load)


def widest_gaps(values: NDArray[Any], count_max: int) -> list[Any]:
    """Up to `count_max` of the distinct `values` to cut after, ascending, the largest always among them.

    Where there are more, those below the largest are dealt into even runs, each cut at the widest gap after one of it.
    """
    distinct = sorted(set(values.tolist()))
    if len(distinct) <= count_max:
        return distinct
    gaps = [higher - lower for lower, higher in itertools.pairwise(distinct)]
    edges = [len(gaps) * cut // max(1, count_max - 1) for cut in range(count_max)]
    widest = [max(range(low, high), key=gaps.__getitem__) for low, high in itertools.pairwise(edges)]
    return [distinct[place] for place in (*widest, len(gaps))]


class _Choice(NamedTuple):
    """A choice under trial: who is taken, its cost, what the pass holds, the longest that it leaves behind."""

    taken: list[int]
    cost: float
    load: PassLoad
    longest_left: int


def _preference(choice: _Choice) -> tuple[float, int]:
    """The cheaper first; at the same cost the larger."""
    return choice.cost, -choice.load.request_count


class _Search:
    """The candidates as arrays, and single steps: whether one fits, what remains, filling up one by one."""

    def __init__(
        self, candidates: Sequence[Candidate], base: PassLoad, behind: PassLoad, goal: Goal, effort: float
    ) -> None:
        self.candidates, self.base, self.behind, self.goal = candidates, base, behind, goal
        self.orders_max = int(effort * max(ORDERS_MAX, TABLE_SIZE // len(candidates)))
        self.trials_left = effort * TRIALS_MAX
        lengths, rows, expected, _, _, _, drafts, _ = zip(*candidates, strict=True)
        self.lengths = np.array(lengths)
        self.rows = np.array(rows)
        self.drafts = np.array(drafts)
        self.worths = np.maximum(WORTH_MIN, np.array(expected))
        self.by_length: list[int] = np.argsort(-self.lengths).tolist()
        self.row_room = goal.caps.row_count_max - base.row_count
        self.token_room = goal.caps.token_count_max - base.token_count
        self.everybody = PassLoad(
            base.request_count + len(candidates),
            base.row_count + sum(rows),
            base.token_count + sum(lengths),
            max(base.longest, *lengths),
            max(base.draft_ms, *drafts),
            base.worth + float(self.worths.sum()),
        )
        self.whole = PassLoad(
            self.everybody.request_count + behind.request_count,
            self.everybody.row_count + behind.row_count,
            self.everybody.token_count + behind.token_count,
            worth=self.everybody.worth + behind.worth,
        )

    def nothing(self) -> _Choice:
        """The base alone."""
        longest_left = self.longest_left(())
        return _Choice([], self.goal.cost(self.base, self.whole, longest_left), self.base, longest_left)

    def longest_left(self, taken: Collection[int]) -> int:
        """Cached tokens of the longest that stays behind."""
        for position in self.by_length:
            if position not in taken:
                return max(self.behind.longest, self.candidates[position].length)
        return self.behind.longest

    def fits_alone(self) -> Bools:
        """Who fits beside the base, `[candidates]`."""
        fits = (self.rows <= self.row_room) & (self.lengths <= self.token_room)
        if self.goal.pass_ms(self.everybody) > self.goal.caps.latency_ms_max:
            fits &= np.array([self.goal.fits(self.base.plus(candidate)) for candidate in self.candidates])
        return fits

    def filled(self, choice: _Choice, order: Iterable[int]) -> _Choice:
        """Adds in that order whoever fits and does not make it costlier, until too many have."""
        taken, cost, load, longest_left = choice
        held = set(taken)
        caps, candidates = self.goal.caps, self.candidates
        row_room, token_room = caps.row_count_max - load.row_count, caps.token_count_max - load.token_count
        refused_count = 0
        for position in order:
            candidate = candidates[position]
            if candidate.row_count > row_room or candidate.length > token_room or position in held:
                continue
            self.trials_left -= 1
            larger = load.plus(candidate)
            held.add(position)
            longest = longest_left if candidate.length < longest_left else self.longest_left(held)
            larger_cost = self.goal.cost(larger, self.whole, longest)
            if larger_cost <= cost:
                taken, cost, load, longest_left = [*taken, position], larger_cost, larger, longest
                row_room, token_room = row_room - candidate.row_count, token_room - candidate.length
                continue
            held.discard(position)
            refused_count += 1
            if refused_count == REFUSALS_MAX:
                break
        return _Choice(taken, cost, load, longest_left)

    def seeded(self, taken: Sequence[int], order: Sequence[int]) -> _Choice:
        """The cheapest of choices that begin with one candidate and are filled up in that order, then by worth, then
        from the order's end, as far as trials are left."""
        best = self.nothing()
        seeds = [position for position in order if position not in taken] + list(taken)
        by_worth: list[int] = np.argsort(-self.worths).tolist()
        for sequence in (order, by_worth, order[::-1]):
            for seed in seeds:
                alone = self._alone(seed)
                if alone.cost < math.inf:
                    best = min(best, self.filled(alone, sequence), key=_preference)
                self.trials_left -= len(order) / GLANCES_PER_TRIAL
                if self.trials_left < 0:
                    return best
        return best

    def _alone(self, position: int) -> _Choice:
        load = self.base.plus(self.candidates[position])
        longest_left = self.longest_left((position,))
        cost = self.goal.cost(load, self.whole, longest_left) if self.goal.has_room(load) else math.inf
        return _Choice([position], cost, load, longest_left)


def _cheapest_prefix(search: _Search, fits: Bools) -> tuple[_Choice, list[int]]:
    """The cheapest prefix of several orders of the candidates, and its order; tables are `[orders, candidates]`.

    An order knows a limit on length and on drafting (the sweep); those beyond it come last and belong to no prefix.
    It goes by cost per token: the time that one more of its rows and one more request add to a pass up to the limit,
    and, where there is no room for all, in a second order also the share of the room.
    """
    base, goal = search.base, search.goal
    keys = _keys(search, fits)
    orders = np.argsort(keys, axis=1)
    lengths = search.lengths[orders]
    counts = np.arange(1, len(search.rows) + 1)
    longest_left = np.full(orders.shape, search.behind.longest)
    np.maximum.accumulate(lengths[:, :0:-1], axis=1, out=longest_left[:, -2::-1])
    held = Tables(
        base.request_count + counts,
        base.row_count + search.rows[orders].cumsum(axis=1),
        base.token_count + lengths.cumsum(axis=1),
        np.maximum(base.longest, np.maximum.accumulate(lengths, axis=1)),
        np.maximum(base.draft_ms, np.maximum.accumulate(search.drafts[orders], axis=1)),
        base.worth + search.worths[orders].cumsum(axis=1),
    )
    costs = goal.costs(held, search.whole, np.maximum(search.behind.longest, longest_left))
    costs[counts > np.isfinite(keys).sum(axis=1, keepdims=True)] = np.inf
    place, end = divmod(costs.size - 1 - int(costs[::-1, ::-1].argmin()), len(counts))  # the largest of equals
    load = PassLoad(base.request_count + end + 1, *[column[place, end].item() for column in held[1:]])
    order: list[int] = orders[place].tolist()
    taken = order[: end + 1]
    return _Choice(taken, costs[place, end].item(), load, search.longest_left(taken)), order


def _keys(search: _Search, fits: Bools) -> Floats:
    """What to sort by, `[orders, candidates]`; infinite beyond the limits."""
    verify_ms = search.goal.times.verify_ms
    row_count, token_count = max(1, int(search.rows.sum())), max(1, int(search.lengths.sum()))
    room = min(search.row_room / row_count, search.token_room / token_count)
    share = min(1.0, max(room, 1 / len(search.rows)))
    count = search.base.request_count + max(1, int(share * len(search.rows)))
    half = share * row_count / 2
    rows = search.base.row_count + half
    price_count = 1 if room >= 1.0 else 2
    orders = []
    for longest, draft_ms in _limits(search, fits, price_count):
        most = max(longest, search.base.longest)
        top_ms = verify_ms(count, most, rows + half)
        row_ms = (top_ms - verify_ms(count, most, rows)) / half
        request_ms = (top_ms - verify_ms(1, most, rows + half)) / max(1, count - 1)
        orders += [(longest, draft_ms, row_ms, request_ms, top_ms * price) for price in range(price_count)]
    longest, draft_ms, row_ms, request_ms, price = np.array(orders).T[:, :, None]
    need = search.rows / max(1, search.row_room) + search.lengths / max(1, search.token_room)
    within = fits & (search.lengths <= longest) & (search.drafts <= draft_ms)
    adds_ms = row_ms * search.rows + request_ms + price * need + TINY
    keys: Floats = np.where(within, adds_ms / search.worths, np.inf)[within.any(axis=1)]
    return keys


def _limits(search: _Search, fits: Bools, price_count: int) -> list[tuple[int, float]]:
    """Limits on length and drafting; one on length alone where a pass takes as long for short requests. The least
    drafting is always among them: to wait for none."""
    count = len(search.rows)
    lengths, drafts = search.lengths[fits], search.drafts[fits]
    draft_cuts = sorted({drafts.min().item(), *widest_gaps(drafts, DRAFT_CUTS_MAX)})
    shortest, longest = int(lengths.min()), int(lengths.max())
    verify_ms = search.goal.times.verify_ms
    if verify_ms(count, shortest, count) == verify_ms(count, longest, count):
        return [(longest, draft_ms) for draft_ms in draft_cuts]
    length_cuts = widest_gaps(lengths, max(2, search.orders_max // (len(draft_cuts) * price_count)))
    return list(itertools.product(length_cuts, draft_cuts))
