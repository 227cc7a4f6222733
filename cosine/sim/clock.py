"""Virtual time: calls wait in a heap for their moment. It knows nothing of what is called."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Call = Callable[[], None]


class Clock:
    """`now` is in seconds and moves only from call to call; calls of one moment keep their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.call_count = 0
        self._heap: list[tuple[float, int, Call]] = []

    def at(self, time: float, call: Call) -> None:
        """Calls at `time`, or at once where that has passed."""
        self.call_count += 1
        heapq.heappush(self._heap, (max(time, self.now), self.call_count, call))

    def after(self, seconds: float, call: Call) -> None:
        """Calls when `seconds` have passed."""
        self.at(self.now + seconds, call)

    def step(self) -> bool:
        """Makes the next call; False where none is left."""
        if not self._heap:
            return False
        self.now, _, call = heapq.heappop(self._heap)
        call()
        return True


class Timer:
    """One alarm that can be moved; only its latest wish rings."""

    def __init__(self, clock: Clock, ring: Call) -> None:
        self.time: float | None = None
        self._clock = clock
        self._ring = ring
        self._wish = 0

    def set(self, time: float) -> None:
        """Rings at `time` and at no earlier wish."""
        self._wish += 1
        self.time = time
        wish = self._wish
        self._clock.at(time, lambda: self._reached(wish))

    def _reached(self, wish: int) -> None:
        if wish == self._wish:
            self.time = None
            self._ring()
