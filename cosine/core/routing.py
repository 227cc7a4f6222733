"""Which drafters work on a request: how often each one's next token was right there, with exploration.

After a verdict every drafter that took part is judged along the committed path from the root: a hit per committed token
it proposed, and a miss where it first did not. Old rounds fade. A request starts from what each drafter achieved on all
requests so far; while its best drafter is right less often than `EXPLORE_BELOW`, rarely tried ones get a bonus
(CoSine's exploration), above that the best rates win.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EXPLORE_BELOW = 0.6
BONUS = 0.25
FADE = 0.8
PRIOR_TRIES = 1.5
SHARED_FADE = 0.98
FIRST_GUESS = 0.5


@dataclass(frozen=True, slots=True)
class Credit:
    """One drafter's part in one verdict: committed tokens in a row that it proposed, out of how many tries."""

    hits: int
    tries: int


@dataclass(slots=True)
class Score:
    """Faded hits and tries of one drafter in one request."""

    hits: float = 0.0
    tries: float = 0.0


@dataclass(slots=True)
class SharedScores:
    """How often each drafter was right over all requests: the prior of a new one."""

    rates: dict[str, float] = field(default_factory=dict)

    def prior(self, drafter: str) -> float:
        """Expected hit rate of a drafter in a request nothing is known of."""
        return self.rates.get(drafter, FIRST_GUESS)

    def note(self, drafter: str, credit: Credit) -> None:
        """One round of any request."""
        if credit.tries:
            self.rates[drafter] = SHARED_FADE * self.prior(drafter) + (1 - SHARED_FADE) * credit.hits / credit.tries


@dataclass(slots=True)
class Route:
    """One request's scores."""

    shared: SharedScores
    scores: dict[str, Score] = field(default_factory=dict)
    round_count: int = 0

    def rate(self, drafter: str) -> float:
        """Estimated hit rate of a drafter in this request."""
        score = self.scores.get(drafter, Score())
        return (score.hits + PRIOR_TRIES * self.shared.prior(drafter)) / (score.tries + PRIOR_TRIES)

    def choose(self, drafters: Sequence[str], count: int, first_count: int = 0) -> tuple[str, ...]:
        """The `count` best of the drafters that are up, best first; equal scores in the order of their names.

        A request's first round takes `first_count` instead, so that one verdict says something of each.
        """
        if self.round_count == 0:
            count = max(count, first_count)
        rates = {drafter: self.rate(drafter) for drafter in drafters}
        if max(rates.values(), default=0.0) < EXPLORE_BELOW:
            rates = {drafter: rate + self._bonus(drafter) for drafter, rate in rates.items()}
        return tuple(sorted(drafters, key=lambda drafter: (-rates[drafter], drafter))[:count])

    def _bonus(self, drafter: str) -> float:
        tries = self.scores[drafter].tries if drafter in self.scores else 0.0
        return BONUS * math.sqrt(math.log(2 + self.round_count) / (1.0 + tries))

    def note(self, credits: Mapping[str, Credit]) -> None:
        """The outcome of one round for every drafter that took part."""
        self.round_count += 1
        for drafter, credit in credits.items():
            score = self.scores.setdefault(drafter, Score())
            score.hits = FADE * score.hits + credit.hits
            score.tries = FADE * score.tries + credit.tries
            self.shared.note(drafter, credit)


def credits(drafters: Sequence[str], accepted_proposers: Sequence[int], depth: int) -> dict[str, Credit]:
    """Every drafter's part in a verdict on a tree `depth` deep, from the proposers of its accepted nodes, root down."""
    result: dict[str, Credit] = {}
    for bit, drafter in enumerate(drafters):
        hits = 0
        while hits < len(accepted_proposers) and accepted_proposers[hits] >> bit & 1:
            hits += 1
        result[drafter] = Credit(hits, min(depth, hits + 1))
    return result
