"""How far to guess, as the scheduler asks it: what to draft, whether to, and which nodes of a batch to verify.

What to draft follows from predicted goodput (`goodput`) with what was learned of the mesh (`pace`). Whether to, where
drafting is predicted to lose, is a matter of a small share of time spent on trials. Which nodes to verify follows from
their value (arXiv 2406.16858) and the rows' time, and at the verifier's bound from that or from CoSine's rule. It knows
trees, rates and times; it does not know requests, peers or plans.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cosine.core.goodput import Offer
from cosine.core.pace import SHARED_RATE, HitRate, Pace
from cosine.core.tree import TokenTree, prune, select, values

__all__ = ["TRIAL_ROUNDS", "Cut", "Pace", "Trials", "cut", "learn", "spend", "step_down"]

TRIAL_ROUNDS = 4
TRIAL_SHARE = 0.02
GAIN_LEAST = 0.02


class Cut(Enum):
    """Which of the nodes that pay for their rows are left out where the verifier's bound is below their number: those
    of the least value, whosever they are, or as CoSine does it, step by step one of the request with the most."""

    VALUE = "value"
    LARGEST = "largest"


def cut(kind: Cut, trees: Sequence[TokenTree], pace: Pace, spent_ms: float, rows_max: int) -> list[TokenTree]:
    """What of a batch's trees is verified: at most `rows_max` rows with the roots, closed under parents. `spent_ms` is
    what drafting took."""
    if kind is Cut.VALUE:
        return spend(trees, pace, spent_ms, rows_max)
    all_rows = sum(map(len, trees)) + len(trees)
    return step_down(spend(trees, pace, spent_ms, all_rows), rows_max)


def spend(trees: Sequence[TokenTree], pace: Pace, spent_ms: float, rows_max: int) -> list[TokenTree]:
    """The nodes worth verifying, over all sessions of a batch at once.

    Nodes are taken by value while each raises expected tokens per millisecond of the round, whose fixed part is what
    the verifier waited for of the `spent_ms` of drafting and a pass over the roots, up to `rows_max` rows. Trees stay
    closed under parents.
    """
    tokens = float(len(trees))
    time_ms = pace.exposed_ms(spent_ms) + pace.verify.predict(len(trees))
    slope = pace.verify.slope_ms
    ranked = [
        (-value, node, -index)
        for index, tree in enumerate(trees)
        for node, value in enumerate(values(tree))
        if value * time_ms >= slope * tokens  # every node taken makes the next one's row dearer
    ]
    ranked.sort()
    keep: list[list[int]] = [[] for _ in trees]
    for negative, node, behind in ranked[: max(0, rows_max - len(trees))]:
        if -negative * time_ms < slope * tokens:
            break
        keep[-behind].append(node)
        tokens -= negative
        time_ms += slope
    return [
        tree if len(nodes) == len(tree) else select(tree, sorted(nodes))
        for tree, nodes in zip(trees, keep, strict=True)
    ]


def step_down(trees: Sequence[TokenTree], rows_max: int) -> list[TokenTree]:
    """The trees within `rows_max` rows, roots included: node by node the tree that then has the most (ties: the
    earlier) gives up its least likely one (ties: the later), until all fit (CoSine, adaptive speculation)."""
    sizes = [len(tree) for tree in trees]
    largest = [(-size, index) for index, size in enumerate(sizes)]
    heapq.heapify(largest)
    for _ in range(sum(sizes) - max(0, rows_max - len(trees))):
        size, index = heapq.heapreplace(largest, (largest[0][0] + 1, largest[0][1]))
        sizes[index] = -size - 1
    return [prune(tree, size) for tree, size in zip(trees, sizes, strict=True)]


def learn(
    pace: Pace,
    rate: HitRate,
    offer: Offer | None,
    promised: float,
    accepted_count: int,
    depth: int,
    late: bool = False,
    in_vain: bool = False,
) -> None:
    """A verdict took `accepted_count` tokens of a request's tree, `depth` deep as verified (0: none), that was drafted
    under `offer` (None: of no adaptive strategy), which had `promised` so many tokens (0.0: nothing). `late` says that
    drafters were waited for, since nothing had been left to start from; `in_vain` that they brought nothing in time: a
    promise that was not kept, and a miss, or drafters that cannot draft would be asked for ever."""
    if late and offer is not None:
        pace.note_late(sum(offer.promised) / len(offer.promised), accepted_count + 1)
    if not depth:
        broken = in_vain and offer is not None and not offer.rests and promised > 1.0
        rate.note(0, int(broken))
        if broken:
            pace.note_promise(promised, accepted_count + 1)
        return
    misses = 1.0
    if offer is not None:
        misses = pace.misses(offer.crew, offer.chain)
        tries = min(depth, accepted_count + 1)
        expected = tries * min(1.0, misses * (1.0 - rate.value))
        pace.note_misses(offer.crew, offer.chain, tries - accepted_count, expected)
    rate.note(accepted_count, depth, misses)
    pace.hit_rate += SHARED_RATE * (rate.value - pace.hit_rate)
    if promised:
        pace.note_promise(promised, accepted_count + 1)


@dataclass(slots=True)
class Trials:
    """Whether to take an offer. One that is predicted to lose is taken all the same for a few rounds now and then (and
    at the start), since only rounds that draft teach what drafting brings.

    A run of trials is paid from `TRIAL_SHARE` of the time of plain rounds: the worse an offer, the rarer. `round_count`
    are the rounds of the run under way, `credit` what was saved and not spent, in plain rounds; what a run takes more
    than was expected is paid off before the next.
    """

    round_count: int = 0
    credit: float = 0.0

    def choose(self, offer: Offer) -> Offer:
        """The offer, or the same without drafts."""
        round_cost = offer.time_ms / offer.plain_ms if offer.plain_ms else 1.0
        return offer if self.allow(offer.gain, round_cost) else offer.plain()

    def allow(self, gain: float, round_cost: float = 0.0) -> bool:
        """Whether to draft, given the predicted gain over plain decoding and the time of such a round in plain ones
        (0: as if it brought one token per session)."""
        if gain >= 1.0:
            self.round_count, self.credit = TRIAL_ROUNDS, 0.0
            return True
        gain = max(GAIN_LEAST, gain)
        loss = (1.0 - gain) * max(round_cost, 1.0 / gain)
        if self.round_count >= TRIAL_ROUNDS:
            self.credit += TRIAL_SHARE
            if self.credit < TRIAL_ROUNDS * loss:
                return False
            self.round_count = 0
        self.round_count += 1
        self.credit -= loss
        return True
