"""How long to draft, as other systems decide it: Minions' online trend and DSI's covered lookahead.

They know lengths and times; strategies, requests and drafters are unknown here. Sources: Minions, arXiv 2402.15678
(adaptive length selector); DSI, arXiv 2405.14105 (sufficiency condition of speculation parallelism).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

WINDOW = 24
MEMORY = 0.85
NEARNESS = 0.7
TOLERANCE = 0.005
PATIENCE = 6
CHANGE = 0.4


@dataclass(slots=True)
class LengthCost:
    """What verdicts on drafts of one length took and brought."""

    verify_ms: float = 0.0
    token_count: float = 0.0
    verdict_count: float = 0.0

    @property
    def cost(self) -> float:
        return self.verify_ms / self.token_count

    def add(self, other: LengthCost) -> None:
        self.verify_ms += other.verify_ms
        self.token_count += other.token_count
        self.verdict_count += other.verdict_count

    def fade(self) -> None:
        self.verify_ms *= MEMORY
        self.token_count *= MEMORY
        self.verdict_count *= MEMORY


@dataclass(slots=True)
class Trend:
    """A length that follows the linear trend of verification time per accepted token over length: while a longer one
    improves it, one longer; when it worsens, one shorter.

    It decides after every `WINDOW` verdicts on drafts of just the present length: what was drafted before a change
    drains first. Where the trend is flat it stays, and tries a neighbour after every `PATIENCE` windows, longer and
    shorter in turn, since only what is tried is known. One `Trend` serves all requests that are verified together:
    t_verify is their batch's.
    """

    length_max: int
    length: int = 1
    _known: dict[int, LengthCost] = field(default_factory=dict)
    _window: LengthCost = field(default_factory=LengthCost)
    _rest_count: int = 0
    _probe: int = -1

    def note(self, length: int, verify_ms: float, token_count: int) -> int:
        """A verdict on a draft of `length` tokens: its batch's pass took `verify_ms`, and `token_count` tokens were
        committed (1 or more). Returns the length to draft next."""
        if length == self.length and token_count > 0:
            self._window.add(LengthCost(verify_ms, token_count, 1.0))
            if self._window.verdict_count >= WINDOW:
                self._judge(self._window)
                self._window = LengthCost()
                self.length += self._step()
        return self.length

    def _judge(self, window: LengthCost) -> None:
        """Adds a window to what is known of its length. Where a length no longer costs what it did, nothing else that
        is known holds either."""
        for cost in self._known.values():
            cost.fade()
        self._known = {length: cost for length, cost in self._known.items() if cost.verdict_count >= 1.0}
        before = self._known.get(self.length)
        if before is not None and abs(window.cost - before.cost) > CHANGE * before.cost:
            self._known = {}
        self._known.setdefault(self.length, LengthCost()).add(window)

    def _step(self) -> int:
        """One longer, one shorter, or as long as before."""
        slope = self._slope()
        step = -1 if slope > 0.0 else 1
        if abs(slope) > TOLERANCE * self._known[self.length].cost and 1 <= self.length + step <= self.length_max:
            self._rest_count = 0
            return step
        self._rest_count += 1
        if self._rest_count < PATIENCE and len(self._known) > 1:
            return 0
        self._rest_count = 0
        self._probe = -self._probe
        if not 1 <= self.length + self._probe <= self.length_max:
            self._probe = -self._probe
        return self._probe if self.length_max > 1 else 0

    def _slope(self) -> float:
        """Cost per further token of length, of the line through what is known: nearer lengths and what was seen more
        often and later count more. 0 where only one length is known."""
        weights = {
            length: cost.verdict_count * NEARNESS ** abs(length - self.length) for length, cost in self._known.items()
        }
        total = sum(weights.values())
        mean_length = sum(weight * length for length, weight in weights.items()) / total
        mean_cost = sum(weight * self._known[length].cost for length, weight in weights.items()) / total
        spread = sum(weight * (length - mean_length) ** 2 for length, weight in weights.items())
        together = sum(
            weight * (length - mean_length) * (self._known[length].cost - mean_cost)
            for length, weight in weights.items()
        )
        return together / spread if spread > 0.0 else 0.0


def covered_depth(verify_ms: float, draft_step_ms: float, verifier_count: int, depth_max: int) -> int:
    """The smallest lookahead k of 1 to `depth_max` whose stretches `verifier_count` verifiers keep up with:
    ceil(verify_ms / (k * draft_step_ms)) <= verifier_count; `depth_max` where none is long enough.

    A shorter lookahead notices a rejection sooner; one shorter than this makes stretches wait for a verifier.
    """
    for depth in range(1, depth_max):
        if draft_step_ms > 0.0 and math.ceil(verify_ms / (depth * draft_step_ms)) <= verifier_count:
            return depth
    return depth_max
