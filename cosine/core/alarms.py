"""What the scheduler wants to do later, and when. Times are in seconds on the scheduler's clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

SWEEP_COUNT_MIN = 64

Call = Callable[[float], None]
Owner = str | int


class Alarms:
    """Calls by time; equal times in the order they were set.

    A call may be of an owner: a session by its id, a batch or a plan by its number. Those of owners that have been
    forgotten are never made; they stay in the heap, where `first` may still name them, until they are more than the
    others.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner, Call]] = []
        self._count = 0
        self._owned: dict[Owner, int] = {}
        self._void_count = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def set(self, time: float, call: Call, owner: Owner = "") -> None:
        """Wants `call` to be made at `time`, unless its owner is forgotten before."""
        self._count += 1
        self._owned[owner] = self._owned.get(owner, 0) + 1
        heapq.heappush(self._heap, (time, self._count, owner, call))

    def forget(self, owner: Owner) -> None:
        """Nothing that was set for an owner shall be done; its name does not come again. O(1) on average."""
        self._void_count += self._owned.pop(owner, 0)
        if self._void_count > max(SWEEP_COUNT_MIN, len(self._heap) // 2):
            self._heap = [alarm for alarm in self._heap if alarm[2] in self._owned]
            heapq.heapify(self._heap)
            self._void_count = 0

    def due(self, now: float) -> Iterator[Call]:
        """Calls whose time has come, each once."""
        while self._heap and self._heap[0][0] <= now:
            _, _, owner, call = heapq.heappop(self._heap)
            left = self._owned.get(owner, 0) - 1
            if left < 0:
                self._void_count -= 1
                continue
            self._owned[owner] = left
            if not left:
                del self._owned[owner]
            yield call
