"""An engine that takes as long as a latency profile says, without burning the processor.

It wraps any engine: what is computed is real, when it is done is the profile's. So a laptop can run the real mesh, with
real acceptance, at the speed of other hardware. Steps whose real computation took longer are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cosine.engine.base import Engine, EngineLimits, Logits, ModelCard, Segment


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


class PacedEngine:
    """`engine` at the speed of `pace`."""

    def __init__(
        self,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self.step_count = 0
        self.overrun_count = 0

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def limits(self) -> EngineLimits:
        return self._engine.limits

    def tokens(self, session_id: str) -> Sequence[int]:
        return self._engine.tokens(session_id)

    def forward(self, segments: Sequence[Segment]) -> Logits:
        start = self._clock()
        logits = self._engine.forward(segments)
        left = self._pace.forward_s(segments) - (self._clock() - start)
        self.step_count += 1
        if left > 0:
            self._sleep(left)
        else:
            self.overrun_count += 1
        return logits

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        self._engine.keep(session_id, nodes)

    def close(self, session_ids: Iterable[str]) -> None:
        self._engine.close(session_ids)

    def warm_up(self) -> None:
        self._engine.warm_up()
