"""Negative feedback between drafting and verifying (CoSine, adaptive speculation).

A verifier that drafts wait for gets fewer of them, one that waits for drafts gets more again, up to what the strategy
says. Beyond that next to nothing is gained (closed loads of the paper's profile: 167 instead of 166 tokens per second
with one client, not one more with 4, 16 or 32), and knobs are bounds.

It turns idle and waiting times into one level, and a level into bounds of what a plan may draft. It knows neither
requests nor peers, and predicts nothing: what pays within the bounds is for `goodput` to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cosine.core.goodput import Shape

STEP = 2.0**0.5
LEVEL_MIN = -4
BAND = 0.2
SMOOTHING = 0.5
PUSH = 0.4
PUSH_MAX = 4.0
LEAK = 0.5
RELIEF = 0.5


@dataclass(slots=True)
class Feedback:
    """A damped controller around one verifier, told of every batch.

    `level` 0 is what the strategy says, each level below is `STEP` times less, down to `LEVEL_MIN`.

    Pressure is waiting less idling, as share of the batch's time; what exceeds `BAND` adds up and moves the level by
    one when it reaches a threshold, then starts anew, so that every step is seen before the next. Where nobody waited
    there is nothing to be gained by fewer drafts, and the level returns to 0 at a pressure of `RELIEF` at least. A step
    back doubles the threshold, a step onward resets it: around a balance that no level meets exactly it comes to rest
    instead of swinging.
    """

    level: int = 0
    _pressure: float = 0.0
    _sum: float = 0.0
    _threshold: float = PUSH
    _last_step: int = 0

    @property
    def factor(self) -> float:
        """How much of what the strategy says may be drafted."""
        return float(STEP**self.level)

    def note(self, idle_ms: float, waiting_ms: float, busy_ms: float) -> int:
        """A batch: before it the verifier had nothing to do for `idle_ms` while requests were drafting, its requests
        had waited for `waiting_ms` on average with their drafts ready, and it took `busy_ms`. Returns the level."""
        now = max(-1.0, min(1.0, (waiting_ms - idle_ms) / max(1e-9, busy_ms + idle_ms)))
        if waiting_ms <= 0.0 and self.level < 0:
            now = min(now, -RELIEF)
        self._pressure += SMOOTHING * (now - self._pressure)
        beyond = self._pressure - max(-BAND, min(BAND, self._pressure))
        self._sum = self._sum + beyond if beyond else LEAK * self._sum
        step = -1 if self._sum > 0.0 else 1
        if abs(self._sum) >= self._threshold:
            self._sum = 0.0
            if LEVEL_MIN <= self.level + step <= 0:
                self._move(step)
        return self.level

    def limit(self, full: Shape) -> Shape:
        """What a plan may draft at most: drafters, beam and nodes by the present factor, never less than one."""
        count = max(1, round(full.drafter_count * self.factor))
        beam = max(1, round(full.beam * self.factor))
        nodes = max(1, round(full.node_budget * self.factor))
        return replace(
            full,
            drafter_count=count,
            beam=beam,
            node_budget=nodes,
            crew_full=full.crew_full or full.drafter_count,
            beam_full=full.beam_full or full.beam,
        )

    def _move(self, step: int) -> None:
        back = step == -self._last_step
        self._threshold = min(PUSH_MAX, 2.0 * self._threshold) if back else PUSH
        self._last_step = step
        self.level += step
        self._pressure = 0.0
