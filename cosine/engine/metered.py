"""An engine that learns what its forward passes take, from the work it is given.

A job, such as the steps of a draft, is one observation of its mean pass: with all that belongs to passes, picks and the
keeping of paths, as start-up measures them. Who publishes it is for others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from cosine.core.timing import LineModel
from cosine.engine.around import Around
from cosine.engine.base import Engine, Logits, Segment

Result = TypeVar("Result")


class MeteredEngine(Around):
    """`engine`, unchanged. `passes` starts from what was measured and follows what is seen; `note_count` jobs so far.
    `clock` is in seconds."""

    def __init__(self, engine: Engine, passes: LineModel, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(engine)
        self._clock = clock
        self.passes = passes
        self.note_count = 0
        self._pass_count = self._row_count = self._cached_count = 0

    def learn_from(self, job: Callable[[], Result]) -> Result:
        """Runs a job on this engine. One that runs no pass, or fails, says nothing."""
        self._pass_count = self._row_count = self._cached_count = 0
        start = self._clock()
        result = job()
        count, took_ms = self._pass_count, (self._clock() - start) * 1000
        if count:
            self.passes.note(self._row_count / count, took_ms / count, self._cached_count / count / 1000)
            self.note_count += 1
        return result

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        self._pass_count += 1
        self._row_count += sum(len(segment.token_ids) + len(segment.tree) for segment in segments)
        self._cached_count += sum(segment.base_length for segment in segments)
        return super().forward(segments, stop)
