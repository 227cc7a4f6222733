"""What the scheduler wants to be reminded of, and when. Times are in seconds on the scheduler's clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Alarms:
    """Subjects by time; equal times in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0

    @property
    def first(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def set(self, time: float, subject: str) -> None:
        """Reminds of `subject` at `time`."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, subject))

    def due(self, now: float) -> Iterator[str]:
        """Subjects whose time has come, each once."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
