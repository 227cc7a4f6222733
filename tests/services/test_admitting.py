"""A scheduler's way from the admission stream to its machine: every request is taken, released or acknowledged."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from cosine.core.errors import Unavailable
from cosine.store.admission import AdmissionBounds, AdmissionQueue, AdmissionReader, Admitted, Batch
from cosine.store.connection import Store
from cosine.v1.scheduler_pb2 import AdmittedRequest
from services.scheduler import admitting
from services.scheduler.admitting import Admitting

PATIENCE_S = 20.0
AT_ONCE = AdmissionBounds(claim_idle_ms=0)
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "READ_BLOCK_MS", 1)
    monkeypatch.setattr(admitting, "CLAIM_EVERY_S", 0.001)
    monkeypatch.setattr(admitting, "GATEWAY_WAIT_S", PATIENCE_S)


class Reader(AdmissionReader):
    """Counts what is handed out and given up."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "s1", AT_ONCE)
        self.handed_out: list[str] = []
        self.released: list[str] = []

    async def read(self, count: int, block_ms: int) -> Batch:
        return self._noted(await super().read(count, block_ms))

    async def claim(self, count: int) -> Batch:
        return self._noted(await super().claim(count))

    async def release(self, entries: Iterable[Admitted]) -> None:
        entries = list(entries)
        await super().release(entries)
        self.released += [entry.request.request_id for entry in entries]

    def _noted(self, batch: Batch) -> Batch:
        self.handed_out += [entry.request.request_id for entry in batch.admitted]
        return batch


class Machine:
    """Takes `live_max` requests and keeps them."""

    def __init__(self, store: Store, live_max: int = 100) -> None:
        self.queue = AdmissionQueue(store)
        self.reader = Reader(store)
        self.live: list[str] = []
        self.gateways: set[str] = set()
        self.admitting = Admitting(
            self.reader,
            lambda: live_max - len(self.live),
            self.gateways.__contains__,
            lambda request: self.live.append(request.request_id),
        )

    async def admit(self, *names: str, gateway: str = "g") -> None:
        for name in names:
            await self.queue.admit(AdmittedRequest(request_id=name, gateway_id=gateway), HOUR_MS)

    def attach(self, gateway: str = "g") -> None:
        self.gateways.add(gateway)
        self.admitting.look_again()

    async def waiting_count(self) -> int:
        return (await self.queue.figures()).waiting_count

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Admits meanwhile; what the block waits for must come in time."""
        task = asyncio.create_task(self.admitting.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.reader.close()

    async def waits_for_nothing(self) -> None:
        """Until the stream is empty."""
        while await self.waiting_count():
            pass


async def test_requests_of_an_attached_gateway_are_taken_once_and_in_order(store: Store) -> None:
    machine = Machine(store)
    machine.attach()
    await machine.admit("a", "b", "c")
    async with machine.running():
        await machine.waits_for_nothing()
    assert machine.live == ["a", "b", "c"]


async def test_a_request_whose_gateway_comes_too_late_is_taken_after_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "GATEWAY_WAIT_S", 0.001)
    machine = Machine(store)
    await machine.admit("a")
    async with machine.running():
        while not machine.reader.released:
            await machine.waiting_count()
        assert machine.live == []
        machine.attach()
        await machine.waits_for_nothing()
    assert machine.live == ["a"]


async def test_a_gateway_that_comes_in_time_is_waited_for(store: Store) -> None:
    machine = Machine(store)
    await machine.admit("a", "b")
    async with machine.running():
        while len(machine.reader.handed_out) < 2:
            await machine.waiting_count()
        machine.attach()
        await machine.waits_for_nothing()
    assert (machine.live, machine.reader.released) == (["a", "b"], [])


async def test_requests_that_wait_for_their_gateway_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "HELD_MAX", 2)
    machine = Machine(store)
    await machine.admit(*"abcde")
    async with machine.running():
        while not {"c", "d", "e"} <= set(machine.reader.released):
            await machine.waiting_count()
    assert not {"a", "b"} & set(machine.reader.released)


async def test_a_gateway_that_comes_brings_no_more_requests_than_there_is_room(store: Store) -> None:
    machine = Machine(store, live_max=2)
    await machine.admit(*"abcdefgh")
    async with machine.running():
        while len(machine.reader.handed_out) < 8:
            await machine.waiting_count()
        machine.attach()
        while len(machine.reader.released) < 6:
            await machine.waiting_count()
        while await machine.waiting_count() > 6:
            pass
    assert len(machine.live) == 2


async def test_expired_requests_leave_the_stream_however_they_were_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, dead = Machine(store), AdmissionReader(store, "dead", AT_ONCE)
    machine.attach()
    await machine.admit("claimed")
    await dead.read(1, 1000)
    await machine.admit("read")
    now_ms = await store.now_ms()
    monkeypatch.setattr(store, "now_ms", AsyncMock(return_value=now_ms + 2 * HOUR_MS))
    async with machine.running():
        await machine.waits_for_nothing()
    assert machine.live == []
    await dead.close()


async def test_a_redis_that_is_away_is_spoken_of_once_and_costs_no_request(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "RETRY_S", 0.0)
    monkeypatch.setattr(admitting, "CLAIM_EVERY_S", PATIENCE_S)
    machine, tries = Machine(store), itertools.count()
    machine.attach()
    await machine.admit("a")
    read = machine.reader.read

    async def read_when_back(count: int, block_ms: int) -> Batch:
        if next(tries) < 3:
            raise Unavailable("STORE_UNREACHABLE", "gone")
        return await read(count, block_ms)

    monkeypatch.setattr(machine.reader, "read", read_when_back)
    with capture_logs() as logs:
        async with machine.running():
            await machine.waits_for_nothing()
    assert machine.live == ["a"]
    assert len(logs) == 1


async def test_draining_gives_up_what_waits_for_its_gateway(store: Store) -> None:
    machine = Machine(store)
    await machine.admit("a")
    async with machine.running():
        while not machine.reader.handed_out:
            await machine.waiting_count()
        await machine.admitting.drain()
        while not machine.reader.released:
            await machine.waiting_count()
        machine.attach()
        assert await machine.waiting_count() == 1
    assert machine.live == []


async def test_a_scheduler_that_drains_is_handed_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "READ_BLOCK_MS", HOUR_MS)
    monkeypatch.setattr(admitting, "CLAIM_EVERY_S", PATIENCE_S)
    machine, other = Machine(store), AdmissionReader(store, "other")

    async def blocked_count() -> int:
        return int((await store.client.info("clients"))["blocked_clients"])

    async with machine.running():
        while not await blocked_count():
            pass
        await machine.admitting.drain()
        while await blocked_count():
            pass
        await machine.admit("a")
        assert [entry.request.request_id for entry in (await other.read(1, 1000)).admitted] == ["a"]
    assert machine.reader.handed_out == []
    await other.close()
