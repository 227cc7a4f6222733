"""From the admission stream to the machine: takes requests while there is room, and waits aside for their gateways.

A request is acknowledged once the machine has it. One that cannot be taken after all, because its gateway does not come
or the room is gone, is released: it stays on the stream, for us or another scheduler to claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from cosine.core.errors import Unavailable
from cosine.store.admission import AdmissionReader, Admitted, Batch
from cosine.v1.scheduler_pb2 import AdmittedRequest

READ_BLOCK_MS = 1000
READ_COUNT_MAX = 16
CLAIM_EVERY_S = 2.0
GATEWAY_WAIT_S = 3.0
HELD_MAX = 64  # requests that wait aside at once
RETRY_S = 0.5

log = structlog.get_logger()


class Admitting:
    """`room` says how many more requests the machine takes, `is_attached` whether a gateway can be spoken to; `take_in`
    gives the machine a request. `look_again` must be called when one of the first two may have changed."""

    def __init__(
        self,
        reader: AdmissionReader,
        room: Callable[[], int],
        is_attached: Callable[[str], bool],
        take_in: Callable[[AdmittedRequest], None],
    ) -> None:
        self._reader = reader
        self._room = room
        self._is_attached = is_attached
        self._take_in = take_in
        self._changed = asyncio.Event()
        self._draining = False
        self._away = False
        self._held: set[asyncio.Task[None]] = set()

    def look_again(self) -> None:
        """Room or gateways may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Takes requests for ever; Redis away means no new ones."""
        loop = asyncio.get_running_loop()
        claim_at = loop.time()
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._until(lambda: self._room() > 0 and not self._draining)
                try:
                    if loop.time() >= claim_at:
                        await self._take(await self._reader.claim(self._count()), tasks)
                        claim_at = loop.time() + CLAIM_EVERY_S
                    else:
                        await self._take(await self._reader.read(self._count(), READ_BLOCK_MS), tasks)
                    self._away = False
                except Unavailable as error:
                    self._miss(error)
                    await asyncio.sleep(RETRY_S)

    async def drain(self) -> None:
        """Takes nothing new, and releases what waits aside."""
        self._draining = True
        self._reader.interrupt()
        self._changed.set()
        if self._held:
            await asyncio.wait(self._held)

    def _miss(self, error: Unavailable) -> None:
        """The stream cannot be reached; said once."""
        if not self._away:
            log.warning("admission stream away, nothing new is taken", reason=error.message)
        self._away = True

    def _count(self) -> int:
        return min(self._room(), READ_COUNT_MAX)

    async def _take(self, batch: Batch, tasks: asyncio.TaskGroup) -> None:
        """All of a batch finds a place before anything else is awaited: what fails on the way costs no entry."""
        taken: list[Admitted] = []
        given_up: list[Admitted] = []
        for entry in batch.admitted:
            if self._is_attached(entry.request.gateway_id):
                (taken if self._taken(entry) else given_up).append(entry)
            elif len(self._held) < HELD_MAX:
                task = tasks.create_task(self._hold(entry))
                self._held.add(task)
                task.add_done_callback(self._held.discard)
            else:
                given_up.append(entry)
        await self._reader.release(given_up)
        await self._reader.ack([*taken, *batch.expired])

    def _taken(self, entry: Admitted) -> bool:
        """Whether the machine has the entry now, which is to be acknowledged then and else released."""
        if self._room() == 0 or self._draining:
            return False
        self._take_in(entry.request)
        return True

    async def _hold(self, entry: Admitted) -> None:
        """Waits aside for a gateway that is not attached yet."""
        gateway = entry.request.gateway_id
        with suppress(TimeoutError):
            async with asyncio.timeout(GATEWAY_WAIT_S):
                await self._until(lambda: self._is_attached(gateway) or self._draining)
        attached = self._is_attached(gateway)
        if attached and self._taken(entry):
            with suppress(Unavailable):  # acknowledged when Redis is back
                await self._reader.ack([entry])
            return
        if not attached and not self._draining:
            log.warning("request's gateway is not attached", request=entry.request.request_id, gateway=gateway)
        await self._reader.release([entry])

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()
