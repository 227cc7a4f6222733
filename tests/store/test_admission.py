"""The admission stream: bounded at the door, each request to one scheduler, none lost with a dead one."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from cosine.core.errors import Expired, Full
from cosine.store.admission import AdmissionBounds, AdmissionQueue, AdmissionReader
from cosine.store.connection import Store
from cosine.store.records import RequestRecords
from cosine.v1.scheduler_pb2 import AdmittedRequest

AT_ONCE = AdmissionBounds(waiting_max=3, claim_idle_ms=0, consumer_idle_ms=0)


def request(name: str, attempt: int = 1, deadline_unix_ms: int = 0) -> AdmittedRequest:
    return AdmittedRequest(request_id=name, attempt=attempt, token_ids=[1, 2], deadline_unix_ms=deadline_unix_ms)


def in_ms(delay_ms: int) -> int:
    return int(time.time() * 1000) + delay_ms


async def test_a_request_comes_out_as_it_went_in(store: Store) -> None:
    await AdmissionQueue(store).admit(request("a"))
    reader = AdmissionReader(store, "s1")
    batch = await reader.read(count=8, block_ms=1000)
    assert [entry.request for entry in batch.admitted] == [request("a")]
    await reader.close()


async def test_the_door_closes_at_the_bound_and_opens_when_a_request_is_taken(store: Store) -> None:
    queue, reader = AdmissionQueue(store, AT_ONCE), AdmissionReader(store, "s1", AT_ONCE)
    for name in "abc":
        await queue.admit(request(name))
    with pytest.raises(Full) as caught:
        await queue.admit(request("d"))
    assert (caught.value.reason, caught.value.retry_delay_ms) == ("ADMISSION_FULL", 500)
    batch = await reader.read(count=1, block_ms=1000)
    await reader.ack(batch.admitted)
    await queue.admit(request("d"))
    assert (await queue.figures()).waiting_count == 3
    await reader.close()


async def test_the_same_attempt_is_admitted_once(store: Store) -> None:
    queue = AdmissionQueue(store)
    first = await queue.admit(request("a"))
    assert await queue.admit(request("a")) == first
    assert await queue.admit(request("a", attempt=2)) != first
    assert (await queue.figures()).waiting_count == 2


async def test_a_request_whose_deadline_has_passed_is_refused(store: Store) -> None:
    with pytest.raises(Expired):
        await AdmissionQueue(store).admit(request("a", deadline_unix_ms=in_ms(-1)))


async def test_those_that_wait_in_vain_make_room_at_the_bound(store: Store) -> None:
    queue, due = AdmissionQueue(store, AT_ONCE), in_ms(300)
    for name in "abc":
        await queue.admit(request(name, deadline_unix_ms=due))
    with pytest.raises(Full):
        await queue.admit(request("d"))
    await until_admitted(queue, request("d"))
    assert (await queue.figures()).waiting_count == 1


async def until_admitted(queue: AdmissionQueue, admitted: AdmittedRequest) -> None:
    async with asyncio.timeout(10):
        while True:
            with suppress(Full):
                await queue.admit(admitted)
                return


async def test_an_expired_entry_is_reported_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    await queue.admit(request("a", deadline_unix_ms=in_ms(3_600_000)))
    monkeypatch.setattr("cosine.store.admission._now_ms", lambda: in_ms(3_600_001))
    batch = await reader.read(count=8, block_ms=1000)
    assert (batch.admitted, [entry.request.request_id for entry in batch.expired]) == ((), ["a"])
    await reader.close()


async def test_each_request_goes_to_one_scheduler(store: Store) -> None:
    queue = AdmissionQueue(store)
    readers = [AdmissionReader(store, f"s{i}") for i in range(2)]
    for name in "abcd":
        await queue.admit(request(name))
    batches = [await reader.read(count=2, block_ms=1000) for reader in readers]
    assert [[entry.request.request_id for entry in batch.admitted] for batch in batches] == [["a", "b"], ["c", "d"]]
    for reader in readers:
        await reader.close()


async def test_a_reader_that_waits_is_woken_by_a_request(store: Store) -> None:
    reader = AdmissionReader(store, "s1")
    assert (await reader.read(count=1, block_ms=1)).admitted == ()
    waiting = asyncio.create_task(reader.read(count=1, block_ms=10_000))
    await AdmissionQueue(store).admit(request("a"))
    assert len((await waiting).admitted) == 1
    await reader.close()


async def test_what_a_dead_scheduler_held_is_claimed_by_another(store: Store) -> None:
    dead, heir = AdmissionReader(store, "dead", AT_ONCE), AdmissionReader(store, "heir", AT_ONCE)
    await AdmissionQueue(store).admit(request("a"))
    await dead.read(count=1, block_ms=1000)
    await dead.close()
    batch = await heir.claim(count=8)
    assert [entry.request.request_id for entry in batch.admitted] == ["a"]
    assert (await heir.claim(count=8)).admitted == ()
    await heir.ack(batch.admitted)
    assert (await AdmissionQueue(store).figures()).waiting_count == 0


async def test_an_acknowledged_entry_is_not_waiting(store: Store) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    entry_id = await queue.admit(request("a"))
    batch = await reader.read(count=1, block_ms=1000)
    assert await queue.is_waiting(entry_id)
    await reader.ack(batch.admitted)
    assert not await queue.is_waiting(entry_id)
    await reader.close()


async def test_a_withdrawn_request_reaches_nobody(store: Store) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    await queue.withdraw(await queue.admit(request("a")))
    assert await reader.read(count=1, block_ms=1) == await reader.claim(count=1)
    await reader.close()


async def test_a_redis_that_lost_its_data_is_used_again(store: Store) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    await reader.read(count=1, block_ms=1)
    await store.client.flushall()
    await queue.admit(request("a"))
    assert len((await reader.read(count=1, block_ms=1000)).admitted) == 1
    await reader.close()


async def test_an_entry_that_is_no_request_is_dropped(store: Store) -> None:
    await store.client.xadd(store.key("admission"), {"deadline": "0", "request": b"\xff"})
    reader = AdmissionReader(store, "s1")
    assert (await reader.read(count=1, block_ms=1000)).admitted == ()
    assert (await AdmissionQueue(store).figures()).waiting_count == 0
    await reader.close()


async def test_a_record_is_found_by_its_id_and_its_attempts_are_counted(store: Store) -> None:
    records = RequestRecords(store)
    assert await records.load("a") is None
    assert [await records.save("a", b"1"), await records.save("a", b"2")] == [1, 2]
    assert await records.load("a") == b"2"
