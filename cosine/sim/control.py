"""A machine's own processor: what reaches it is worked off one after the other, each taking its computing time.

With costs of zero, as a table of strategies has them, everything is done at once; sweeps set what was measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

from cosine.sim.clock import Clock

CLOCK_READINGS = 25

Work = Callable[[], tuple[Any, int]]
Deliver = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ControlCost:
    """Microseconds of computing per message, and per session in it, of a scheduler and of a fusion."""

    scheduler_event_us: float = 0.0
    scheduler_item_us: float = 0.0
    fusion_event_us: float = 0.0
    fusion_item_us: float = 0.0


@cache
def _clock_s() -> float:
    """What reading the processor's clock takes by itself: a lot, on some machines."""
    readings = [time.thread_time() for _ in range(2 * CLOCK_READINGS)]
    return sorted(later - earlier for earlier, later in pairwise(readings))[CLOCK_READINGS]


class Control:
    """One machine. `busy_s` is virtual; `spent_s` is the processor time that it really computed for on the machine at
    hand, and so never part of a result that is to be the same everywhere."""

    def __init__(self, clock: Clock, event_us: float, item_us: float) -> None:
        self.message_count = 0
        self.item_count = 0
        self.spent_s = 0.0
        self.busy_s = 0.0
        self._clock = clock
        self._event_s, self._item_s = event_us / 1e6, item_us / 1e6
        self._inbox: deque[tuple[Work, Deliver]] = deque()
        self._busy = False

    def do(self, work: Work, deliver: Deliver) -> None:
        """Works (returning what to deliver, and of how many sessions it was), then delivers."""
        self._inbox.append((work, deliver))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = True
        while self._inbox:
            work, deliver = self._inbox.popleft()
            self.message_count += 1
            began = time.thread_time()  # of every message: a few are so much dearer that a sample misleads
            result, item_count = work()
            self.spent_s += max(0.0, time.thread_time() - began - _clock_s())
            self.item_count += item_count
            cost_s = self._event_s + self._item_s * item_count
            if cost_s:
                self.busy_s += cost_s
                self._clock.after(cost_s, partial(self._done, deliver, result))
                return
            deliver(result)
        self._busy = False

    def _done(self, deliver: Deliver, result: Any) -> None:
        deliver(result)
        self._next()
