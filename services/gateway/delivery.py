"""Ends a call whose client takes nothing more when its time is over, or soon after the gateway was told to stop.

A servicer that yields stands still for as long as the client does not read, and no deadline of its own runs there. So
the call is ended from outside: what the generation holds is let go of at once, and the status lies ready behind what
was sent, for a client that reads on after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from cosine.core.errors import Expired, MeshError, Unavailable
from cosine.rpc.errors import abort
from services.gateway.generation import TIME_OVER

Context = grpc.aio.ServicerContext[Any, Any]

STILL_S = 2.0  # who takes one message no faster keeps no gateway from stopping


@dataclass(frozen=True, slots=True, eq=False)
class _HandOver:
    """One message on its way out of the task of its call."""

    call: asyncio.Task[Any]
    context: Context


class Deliveries:
    """All calls of a gateway that hand something over."""

    def __init__(self) -> None:
        self._under_way: set[_HandOver] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @contextmanager
    def handing_over(self, context: Context, deadline: float) -> Iterator[None]:
        """Around a yield of the call's own task. `deadline` is on the event loop's clock."""
        call = asyncio.current_task()
        assert call is not None
        hand_over = _HandOver(call, context)
        self._under_way.add(hand_over)
        late = Expired("DEADLINE_EXCEEDED", TIME_OVER)
        alarm = asyncio.get_running_loop().call_at(deadline, self._end, hand_over, late)
        try:
            yield
        finally:
            alarm.cancel()
            self._under_way.discard(hand_over)

    async def hurry(self) -> None:
        """Ends the calls of those that do not read, until cancelled; they can go on at another gateway."""
        while True:
            before = set(self._under_way)
            await asyncio.sleep(STILL_S)
            for hand_over in before & self._under_way:
                stopping = "this gateway is stopping; go on at another with the tokens received"
                self._end(hand_over, Unavailable("DRAINING", stopping, retry_delay_ms=100))

    def _end(self, hand_over: _HandOver, error: MeshError) -> None:
        if not hand_over.call.done():
            ending: asyncio.Task[None] = asyncio.create_task(abort(hand_over.context, error))
            self._ending.add(ending)
            ending.add_done_callback(self._ended)
            hand_over.call.cancel()

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled():
            ending.exception()  # always one: aborting raises, whether the client read on or left
