"""What the scheduler wants to do later, and when. Times are in seconds on the scheduler's clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

Call = Callable[[float], None]


class Alarms:
    """Calls by time; equal times in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._count = 0

    @property
    def first(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def set(self, time: float, call: Call) -> None:
        """Wants `call` to be made at `time`."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, call))

    def due(self, now: float) -> Iterator[Call]:
        """Calls whose time has come, each once."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
