"""Which one drafter works on each of a batch of requests: a bandit on goodput, and a matching under capacities.

Each drafter model is an arm of a request's bandit. The reward is tokens per second of a round, not acceptance: a slower
drafter that is accepted more may still lose. Nothing is assumed of a request's difficulty: every arm is tried
`TRIES_MIN` times, then the best estimate wins, with a small bonus for arms not tried for long. Requests of a batch want
the same drafters, so they are assigned together: the matching of the greatest total worth with at most `capacity`
requests per drafter, exact up to `EXACT_REQUESTS_MAX` requests at a time.

Deviation: the tokens of a round are all it committed, bonus token included, since that is what a request gets out of a
second. It knows neither how drafters draft nor where replicas run. Source: SPIN, arXiv 2503.15921, SSM selection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRIES_MIN = 3
FADE = 0.98
BONUS = 0.2
EXACT_REQUESTS_MAX = 256
ROUNDING = 1e-12
UNASSIGNED = -1


@dataclass(slots=True)
class Arm:
    """One drafter in one request: faded sums of tokens, seconds and rounds."""

    tokens: float = 0.0
    seconds: float = 0.0
    rounds: float = 0.0
    round_count: int = 0

    @property
    def goodput(self) -> float:
        """Tokens per second; 0 before the first round."""
        return self.tokens / self.seconds if self.seconds > 0.0 else 0.0


@dataclass(slots=True)
class Bandit:
    """One request's arms."""

    arms: dict[str, Arm] = field(default_factory=dict)
    round_count: int = 0

    def worths(self, drafters: Sequence[str]) -> list[float]:
        """Tokens per second to hope for from each drafter. One that was tried less than `TRIES_MIN` times is hoped to
        be better than all that are known, the more so the less it was tried."""
        arms = [self.arms.get(drafter, Arm()) for drafter in drafters]
        best = max((arm.goodput for arm in arms), default=0.0) or 1.0
        return [self._worth(arm, best) for arm in arms]

    def _worth(self, arm: Arm, best: float) -> float:
        bonus = best * BONUS * math.sqrt(math.log(2 + self.round_count) / max(arm.rounds, 0.1))
        if arm.round_count < TRIES_MIN:
            return best * (2 + TRIES_MIN - arm.round_count) + bonus
        return arm.goodput + bonus

    def note(self, drafter: str, token_count: int, seconds: float) -> None:
        """A round with a drafter committed so many tokens and took so long. Rounds of no length teach nothing."""
        if seconds <= 0.0:
            return
        self.round_count += 1
        for arm in self.arms.values():
            arm.rounds *= FADE
        arm = self.arms.setdefault(drafter, Arm())
        arm.tokens = FADE * arm.tokens + token_count
        arm.seconds = FADE * arm.seconds + seconds
        arm.rounds += 1.0
        arm.round_count += 1


def assign(bandits: Sequence[Bandit], drafters: Sequence[str], capacities: Sequence[int]) -> list[str]:
    """One drafter per request, in order; "" for requests that no drafter has room for.

    `capacities[d]` is how many requests drafter d takes. More than `EXACT_REQUESTS_MAX` requests are matched in parts,
    each to the room that earlier ones left.
    """
    room = np.array(capacities, dtype=np.int64).reshape(len(drafters))
    chosen: list[str] = []
    for start in range(0, len(bandits), EXACT_REQUESTS_MAX):
        part = bandits[start : start + EXACT_REQUESTS_MAX]
        worth = np.array([bandit.worths(drafters) for bandit in part]).reshape(len(part), len(drafters))
        matched = match(worth, room)
        room -= np.bincount(matched[matched != UNASSIGNED], minlength=len(drafters))
        chosen += [drafters[index] if index != UNASSIGNED else "" for index in matched]
    return chosen


def match(worth: NDArray[np.float64], capacities: NDArray[np.int64]) -> NDArray[np.int64]:
    """The assignment of rows to columns of the greatest total worth: `[rows]`, a column or UNASSIGNED.

    `worth` is `[rows, columns]`, not negative; column c takes at most `capacities[c]` rows. Exact: rows come in one by
    one, and each takes the path of displacements that adds the most (successive shortest paths; a column stands for all
    its places, so paths run over columns, not over places). O(rows * (columns^3 + rows * columns)) at worst, O(rows *
    columns) where no column overflows.
    """
    rows, columns = worth.shape
    padded = np.concatenate([worth, np.zeros((rows, 1))], axis=1)  # the last column takes whoever is left out
    room = np.append(capacities, rows)
    taken = np.full(rows, columns)
    least = ROUNDING * float(padded.max(initial=1.0))
    # Per column and other column: what is lost least by moving a row of the one to the other, and which row.
    cost = np.full((columns + 1, columns + 1), np.inf)
    mover = np.zeros((columns + 1, columns + 1), dtype=np.int64)
    for row in range(rows):
        path = _best_path(padded[row], cost, room, least)
        for source, target in itertools.pairwise(path):
            taken[mover[source, target]] = target
        taken[row] = path[0]
        room[path[-1]] -= 1
        for column in path:
            inside = np.flatnonzero(taken[: row + 1] == column)
            losses = padded[inside, column][:, None] - padded[inside]
            losses[:, column] = np.inf
            cost[column], mover[column] = losses.min(axis=0), inside[losses.argmin(axis=0)]
    taken[taken == columns] = UNASSIGNED
    return taken


def _best_path(
    gains: NDArray[np.float64], cost: NDArray[np.float64], room: NDArray[np.int64], least: float
) -> list[int]:
    """Columns from the one a new row takes to one with room; each but the last hands a row on to the next. Gains below
    `least` are rounding."""
    first = int(gains.argmax())
    if room[first] > 0:
        return [first]
    reach = -gains
    before = np.full(reach.shape[0], UNASSIGNED)
    for _ in range(reach.shape[0]):
        through = reach[:, None] + cost
        nearest = through.argmin(axis=0)
        shorter = through[nearest, np.arange(reach.shape[0])] < reach - least
        if not shorter.any():
            break
        before[shorter] = nearest[shorter]
        reach = np.minimum(reach, through.min(axis=0))
    path = [int(np.where(room > 0, reach, np.inf).argmin())]
    while before[path[0]] != UNASSIGNED:
        path.insert(0, int(before[path[0]]))
    return path
