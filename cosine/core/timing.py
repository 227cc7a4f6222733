"""Time models, learned online: how long a forward pass takes for its rows, how long drafting takes for its exchanges.

All are sums of costs, each a coefficient times a size, fitted by least squares whose older observations fade. No
coefficient ever falls below zero, since neither a pass nor a row takes negative time. Nothing here knows what is
measured or who drafts; sizes come from the caller (form of the verifier's model: arXiv 2406.14066, 2601.11652).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

FADE = 0.97
SHARED_COST = 0.25
SHARED_NOTES = 60
LEAST_MS = 0.05
OUTLIER = 4.0
TRUSTED_WEIGHT = 4.0  # observations from which on a model can tell a stall from news
SEED_WEIGHT = 20.0
DAMPING = 0.003
SWEEPS = 12
STILL = 1e-4
KILOTOKENS_PRIOR = 0.5


class Moments:
    """What least squares needs of the observations seen so far: their products, fading."""

    def __init__(self, size_count: int) -> None:
        self.weight = 0.0
        self._gram = [[0.0] * size_count for _ in range(size_count)]
        self._cross = [0.0] * size_count

    def fade(self) -> None:
        """Everything seen so far counts a little less."""
        self.weight *= FADE
        self._cross = [FADE * entry for entry in self._cross]
        self._gram = [[FADE * entry for entry in row] for row in self._gram]

    def add(self, sizes: Sequence[float], took_ms: float, weight: float = 1.0) -> None:
        """One observation: so many of each size took so long."""
        self.weight += weight
        for place, size in enumerate(sizes):
            if size:
                size *= weight
                self._cross[place] += size * took_ms
                row = self._gram[place]
                for index, other in enumerate(sizes):
                    row[index] += size * other

    def solve(self, start: Sequence[float]) -> list[float]:
        """Coefficients of zero or more that fit best, close to `start` where the observations do not tell them apart.

        Coordinate descent, with a pull towards `start` so weak that it only decides what nothing else decides, until it
        moves no more.
        """
        found = list(start)
        steps = [
            (index, row, own, self._cross[index], DAMPING * own * start[index], own + DAMPING * own)
            for index, row in enumerate(self._gram)
            if (own := row[index]) > 0.0
        ]
        for _ in range(SWEEPS):
            moved = False
            for index, row, own, cross, pull, weight in steps:
                before = found[index]
                others = sum(map(mul, row, found)) - own * before
                pulled = cross - others + pull
                found[index] = after = pulled / weight if pulled > 0.0 else 0.0
                moved = moved or abs(after - before) > STILL * after
            if not moved:
                break
        return found


@dataclass(slots=True)
class LineModel:
    """A forward pass in milliseconds: `base_ms`, `slope_ms` per row, and `kilotoken_ms` per 1000 cached tokens read.

    The coefficients given are the prior, worth `weight` observations.
    """

    base_ms: float
    slope_ms: float
    weight: float = 2.0
    prior_size: float = 8.0
    kilotoken_ms: float = 0.0
    _moments: Moments = field(default_factory=lambda: Moments(3), repr=False, compare=False)

    def __post_init__(self) -> None:
        for size in (1.0, 2 * self.prior_size):
            self._moments.add((1.0, size, 0.0), self.base_ms + self.slope_ms * size, self.weight / 2)
        self._moments.add((0.0, 0.0, KILOTOKENS_PRIOR), KILOTOKENS_PRIOR * self.kilotoken_ms, self.weight)
        self._moments.weight = self.weight

    @classmethod
    def seeded(cls, base_ms: float, slope_ms: float) -> LineModel:
        """A model that starts from a measurement: it counts as many observations, and stalls are known at once."""
        return cls(base_ms, slope_ms, weight=SEED_WEIGHT)

    def note(self, size: float, took_ms: float, kilotokens: float = 0.0) -> None:
        """One observation. What takes several times as long as predicted is a stall, not the model's business."""
        moments = self._moments
        if moments.weight > TRUSTED_WEIGHT:
            took_ms = min(took_ms, OUTLIER * max(self.predict(size, kilotokens), LEAST_MS))
        moments.fade()
        moments.add((1.0, size, kilotokens), took_ms)
        self.base_ms, self.slope_ms, self.kilotoken_ms = moments.solve((self.base_ms, self.slope_ms, self.kilotoken_ms))

    def predict(self, size: float, kilotokens: float = 0.0) -> float:
        """Milliseconds for a pass over `size` rows that reads `kilotokens` thousand cached tokens."""
        return self.base_ms + self.slope_ms * size + self.kilotoken_ms * kilotokens


@dataclass(frozen=True, slots=True)
class DraftLoad:
    """What a plan makes drafters do: exchanges with them, forward passes and rows of the busiest drafter, and passes
    and rows of all others together (`pass_extra`, `row_extra`), which cost nothing where each has its own machine."""

    exchange_count: float = 0.0
    pass_count: float = 0.0
    row_count: float = 0.0
    pass_extra: float = 0.0
    row_extra: float = 0.0

    @property
    def spent_sizes(self) -> tuple[float, float, float, float]:
        return self.pass_count, self.row_count, self.pass_extra, self.row_extra

    @property
    def rest_sizes(self) -> tuple[float, float, float]:
        return self.exchange_count, self.pass_extra, self.row_extra


@dataclass(slots=True)
class DraftModel:
    """Drafting in milliseconds, with what it learns about how parallel the drafters are.

    What drafters report as spent is laid to their passes and rows, the rest to exchanges; both also to what the other
    drafters did meanwhile. Machines of their own make the `_extra_ms` zero, shared processors make them positive,
    whether the slowest drafter computes longer or answers later. The prior believes in machines of their own: what is
    wrong with that shows as soon as two drafters work at once, while what makes them seem dear would never be tried.
    """

    exchange_ms: float = 2.0
    pass_ms: float = 0.15
    row_ms: float = 0.03
    pass_extra_ms: float = 0.0
    row_extra_ms: float = 0.0
    pass_wait_ms: float = 0.0
    row_wait_ms: float = 0.0
    note_count: int = 0
    own_weight: float = 1.0
    _spent: Moments = field(default_factory=lambda: Moments(4), repr=False, compare=False)
    _rest: Moments = field(default_factory=lambda: Moments(3), repr=False, compare=False)

    def __post_init__(self) -> None:
        own = self.own_weight
        _believe(self._spent, self._spent_costs, (4.0, 8.0, 4.0, 8.0), (own, own, 1.0, 1.0))
        _believe(self._rest, self._rest_costs, (1.0, 4.0, 8.0), (1.0, 1.0, 1.0))

    @classmethod
    def seeded(cls, pass_ms: float, row_ms: float, exchange_ms: float = 2.0) -> DraftModel:
        """A model that starts from a drafter's measured pass and row; how parallel drafters are is still to be seen."""
        return cls(exchange_ms, pass_ms, row_ms, note_count=1, own_weight=SEED_WEIGHT)

    def note(self, load: DraftLoad, took_ms: float, spent_ms: float) -> None:
        """One plan: how long it took from sending it to its last tree, and how much of that its slowest drafters
        computed. What takes several times as long as predicted is a stall, not the model's business."""
        if not load.exchange_count:
            return
        spent_ms = min(spent_ms, took_ms)
        rest_ms = took_ms - spent_ms
        if self.note_count > TRUSTED_WEIGHT:
            spent_ms = min(spent_ms, OUTLIER * max(_cost(self._spent_costs, load.spent_sizes), LEAST_MS))
            rest_ms = min(rest_ms, OUTLIER * max(_cost(self._rest_costs, load.rest_sizes), LEAST_MS))
        for moments, sizes, value_ms in (
            (self._spent, load.spent_sizes, spent_ms),
            (self._rest, load.rest_sizes, rest_ms),
        ):
            moments.fade()
            moments.add(sizes, value_ms)
        spent, rest = self._spent.solve(self._spent_costs), self._rest.solve(self._rest_costs)
        self.pass_ms, self.row_ms, self.pass_extra_ms, self.row_extra_ms = spent
        self.exchange_ms, self.pass_wait_ms, self.row_wait_ms = rest
        self.note_count += 1

    def predict(self, load: DraftLoad) -> float:
        """Milliseconds from sending a plan to its last tree."""
        return _cost(self._spent_costs, load.spent_sizes) + _cost(self._rest_costs, load.rest_sizes)

    @property
    def prices(self) -> tuple[float, ...]:
        """Milliseconds that each entry of a `DraftLoad` costs, in their order."""
        extra_ms, row_extra_ms = self.pass_extra_ms + self.pass_wait_ms, self.row_extra_ms + self.row_wait_ms
        return self.exchange_ms, self.pass_ms, self.row_ms, extra_ms, row_extra_ms

    @property
    def apart(self) -> bool:
        """True once it is known that drafters do not slow one another down as if they shared processors."""
        extra_ms = self.pass_extra_ms + self.pass_wait_ms
        return self.note_count > SHARED_NOTES and extra_ms <= SHARED_COST * max(self.pass_ms, LEAST_MS)

    @property
    def _spent_costs(self) -> tuple[float, ...]:
        return self.pass_ms, self.row_ms, self.pass_extra_ms, self.row_extra_ms

    @property
    def _rest_costs(self) -> tuple[float, ...]:
        return self.exchange_ms, self.pass_wait_ms, self.row_wait_ms


def _cost(coefficients: Sequence[float], sizes: Sequence[float]) -> float:
    return float(sum(map(mul, coefficients, sizes)))


def _believe(moments: Moments, coefficients: Sequence[float], sizes: Sequence[float], weights: Sequence[float]) -> None:
    """Makes a prior of the coefficients: each as if it had been seen alone, at a usual size."""
    for index, (coefficient, size, weight) in enumerate(zip(coefficients, sizes, weights, strict=True)):
        alone = [size if index == other else 0.0 for other in range(len(sizes))]
        moments.add(alone, coefficient * size, weight)
