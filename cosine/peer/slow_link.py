"""The time that a slower network would take, added to answers without holding up whoever computes them.

For meshes that stand on one machine and are to behave as if their peers stood apart. Knows times and sizes,
not messages.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from cosine.core.errors import BadRequest


@dataclass(frozen=True, slots=True)
class LinkPace:
    """A link: `round_trip_ms` for a message and its answer, `mbps` megabits per second (infinite: size is free)."""

    round_trip_ms: float
    mbps: float = math.inf

    def transfer_s(self, byte_count: int) -> float:
        """Seconds that so many bytes occupy the link."""
        return byte_count * 8 / (self.mbps * 1e6)


def parse_link(text: str) -> LinkPace:
    """Reads "ROUND_TRIP_MS[,MBPS]". Raises BadRequest where that is not zero or more, and more than zero."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    finite = 1 <= len(numbers) <= 2 and all(map(math.isfinite, numbers))
    if not finite or numbers[0] < 0 or min(numbers[1:], default=1) <= 0:
        raise BadRequest("LINK", f"link {text!r} is not ROUND_TRIP_MS[,MBPS], for example 0.4,100")
    return LinkPace(*numbers)


class SlowLink:
    """One stream's link. What is sent first arrives first; messages wait for the bytes of those before them."""

    def __init__(self, pace: LinkPace, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._pace = pace
        self._loop = loop or asyncio.get_running_loop()
        self._free_at = 0.0
        self._last_due = 0.0
        self._waiting: set[asyncio.TimerHandle] = set()

    def deliver(self, byte_count: int, send: Callable[[], None]) -> None:
        """Calls `send` once `byte_count` bytes, asked and answered together, would have come through."""
        self._free_at = max(self._free_at, self._loop.time()) + self._pace.transfer_s(byte_count)
        due = max(self._free_at + self._pace.round_trip_ms / 1000, math.nextafter(self._last_due, math.inf))
        self._last_due = due

        def arrive() -> None:
            self._waiting.discard(handle)
            send()

        handle = self._loop.call_at(due, arrive)
        self._waiting.add(handle)

    def close(self) -> None:
        """What is under way is lost."""
        for handle in self._waiting:
            handle.cancel()
        self._waiting.clear()
