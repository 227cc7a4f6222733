"""Which drafters work on a request: an average of accepted tokens per drafter and request, with exploration.

A drafter's credit in a round is the number of committed tokens in a row, from the root, that it proposed. While a
request's acceptance length is below `EXPLORE_BELOW` its untried and rarely tried drafters get a bonus (CoSine's
exploration); above it the best scores win. Requests start from what each drafter achieved on all requests so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EXPLORE_BELOW = 2.5
BONUS = 1.0
FADE = 0.75
SHARED_FADE = 0.98
FIRST_GUESS = 2.0


@dataclass(slots=True)
class Score:
    """A faded average of credits, and how many rounds it rests on."""

    mean: float
    tried: int = 0


@dataclass(slots=True)
class SharedScores:
    """What drafters achieved over all requests: the prior of a new one."""

    means: dict[str, float] = field(default_factory=dict)

    def prior(self, drafter: str) -> float:
        """Expected credit of a drafter in a request nothing is known of."""
        return self.means.get(drafter, FIRST_GUESS)

    def note(self, drafter: str, credit: float) -> None:
        """One round of any request."""
        self.means[drafter] = SHARED_FADE * self.prior(drafter) + (1 - SHARED_FADE) * credit


@dataclass(slots=True)
class Route:
    """One request's scores."""

    shared: SharedScores
    scores: dict[str, Score] = field(default_factory=dict)
    round_count: int = 0
    acceptance: float = 0.0

    def choose(self, drafters: Sequence[str], count: int, first_count: int = 0) -> tuple[str, ...]:
        """The `count` best of the drafters that are up, best first; equal scores in the order of their names.

        A request's first round takes `first_count` instead, so that one verdict says something of each.
        """
        exploring = self.acceptance < EXPLORE_BELOW
        if self.round_count == 0:
            count = max(count, first_count)

        def rank(drafter: str) -> tuple[float, str]:
            score = self.scores.get(drafter)
            if score is None:
                return (-(self.shared.prior(drafter) + BONUS), drafter)
            bonus = BONUS * math.sqrt(math.log(1 + self.round_count) / score.tried) if exploring else 0.0
            return (-(score.mean + bonus), drafter)

        return tuple(sorted(drafters, key=rank)[:count])

    def note(self, credits: Mapping[str, int], committed_count: int) -> None:
        """The outcome of one round: tokens committed, and every taking-part drafter's credit."""
        self.round_count += 1
        self.acceptance = (
            committed_count if self.round_count == 1 else (FADE * self.acceptance + (1 - FADE) * committed_count)
        )
        for drafter, credit in credits.items():
            score = self.scores.setdefault(drafter, Score(self.shared.prior(drafter)))
            score.mean = FADE * score.mean + (1 - FADE) * credit
            score.tried += 1
            self.shared.note(drafter, credit)


def credits(drafters: Sequence[str], accepted_proposers: Sequence[int]) -> dict[str, int]:
    """Per drafter of a plan, how many accepted nodes in a row from the root it proposed (bit i is drafter i)."""
    result: dict[str, int] = {}
    for bit, drafter in enumerate(drafters):
        count = 0
        for proposers in accepted_proposers:
            if not proposers >> bit & 1:
                break
            count += 1
        result[drafter] = count
    return result
