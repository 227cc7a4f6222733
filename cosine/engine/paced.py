"""An engine that takes as long as a latency profile says, without burning the processor.

It wraps any engine: what is computed is real, when it is done is the profile's. So a laptop can run the real mesh, with
real acceptance, at the speed of other hardware. What a pass leaves to do after it (picks, keeping a path) and what the
sleep overshoots is taken from the next pass, so that a series of passes takes the time of the profile's. Passes that
could not keep up with it are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule
from cosine.engine.around import Around
from cosine.engine.base import Engine, Logits, ModelCard, Segment, Stopped

Result = TypeVar("Result")

# A pass that may be stopped sleeps in parts, as if they were layers.
PARTS = 16
PART_S_LEAST = 0.002


@dataclass(frozen=True, slots=True)
class Pace:
    """Time of a forward pass: `base_ms + row_ms * rows + kilotoken_ms * (cached tokens / 1000)`."""

    base_ms: float
    row_ms: float = 0.0
    kilotoken_ms: float = 0.0

    def forward_s(self, segments: Sequence[Segment]) -> float:
        """Seconds the profile gives a forward pass over these segments."""
        rows = sum(len(segment.token_ids) + len(segment.tree) for segment in segments)
        cached = sum(segment.base_length for segment in segments)
        return (self.base_ms + self.row_ms * rows + self.kilotoken_ms * cached / 1000) / 1000


class PacedEngine(Around):
    """`engine` at the speed of `pace`. `clock` and `sleep` are in seconds.

    `pass_count` forward passes have been run, `overrun_count` of them took longer than their time, `late_s` together.
    """

    def __init__(
        self,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(engine)
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._account = _Account(clock)
        self.pass_count = 0
        self.overrun_count = 0
        self.late_s = 0.0

    @property
    def card(self) -> ModelCard:
        return replace(self._engine.card, device="paced")

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        end = self._clock() + self._pace.forward_s(segments) - self._account.settle()
        logits = self._engine.forward(segments, stop)
        late_s = self._clock() - end
        if late_s > 0:
            self.overrun_count += 1
            self.late_s += late_s
        else:
            self._rest(end, segments, stop)
            self._account.owed_s += max(0.0, self._clock() - end)
        self.pass_count += 1
        return _PacedLogits(logits, self._account)

    def _rest(self, end: float, segments: Sequence[Segment], stop: Callable[[], bool] | None) -> None:
        """Sleeps until the end of a pass; one that may be stopped asks between its parts whether it is still wanted."""
        part_s = max(PART_S_LEAST, self._pace.forward_s(segments) / PARTS)
        while stop is not None and end - self._clock() > part_s:
            if stop():
                for segment in segments:
                    self._engine.keep(segment.session_id, ())
                raise Stopped
            self._sleep(part_s)
        left_s = end - self._clock()
        if left_s > 0:
            self._sleep(left_s)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        self._account.charge(lambda: self._engine.keep(session_id, nodes))

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        return self._account.charge(lambda: self._engine.agreement(token_ids, others))


class _Account:
    """Seconds that the passes so far have taken beyond their time; the next one is to take so much less."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.owed_s = 0.0

    def charge(self, call: Callable[[], Result]) -> Result:
        """Runs what belongs to the last pass."""
        start = self._clock()
        try:
            return call()
        finally:
            self.owed_s += self._clock() - start

    def settle(self) -> float:
        """What is owed, which then is nothing."""
        owed_s, self.owed_s = self.owed_s, 0.0
        return owed_s


class _PacedLogits:
    """Logits whose use is charged to the pass they came from."""

    def __init__(self, logits: Logits, account: _Account) -> None:
        self._logits = logits
        self._account = account

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        return self._account.charge(lambda: self._logits.picks(rules))

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        return self._account.charge(lambda: self._logits.children(rows, rules, width))

    def row(self, index: int) -> NDArray[np.float32]:
        return self._account.charge(lambda: self._logits.row(index))
