"""A machine's own processor: what reaches it is worked off one after the other, each taking its computing time.

With costs of zero, as a table of strategies has them, everything is done at once; sweeps set what was measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cosine.sim.clock import Clock

Work = Callable[[], tuple[Any, int]]
Deliver = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ControlCost:
    """Microseconds of computing per message, and per session in it, of a scheduler and of a fusion."""

    scheduler_event_us: float = 0.0
    scheduler_item_us: float = 0.0
    fusion_event_us: float = 0.0
    fusion_item_us: float = 0.0


class Control:
    """One machine. `spent_s` is what it really computed for on the machine at hand, never part of a result that is to
    be the same everywhere; `busy_s` is virtual."""

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
            began = time.perf_counter()
            result, item_count = work()
            self.spent_s += time.perf_counter() - began
            self.message_count += 1
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
