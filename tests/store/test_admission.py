"""The admission stream: bounded at the door, each request to one scheduler, none lost with a dead one."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cosine.core.errors import Expired, Full, Unavailable
from cosine.store.admission import AdmissionBounds, AdmissionQueue, AdmissionReader, Batch
from cosine.store.connection import Store
from cosine.v1.scheduler_pb2 import AdmittedRequest

AT_ONCE = AdmissionBounds(waiting_max=3, claim_idle_ms=0, consumer_idle_ms=0)


HOUR_MS = 3_600_000


def request(name: str, attempt: int = 1) -> AdmittedRequest:
    return AdmittedRequest(request_id=name, attempt=attempt, token_ids=[1, 2])


def put_forward(store: Store, monkeypatch: pytest.MonkeyPatch, delay_ms: int) -> None:
    """Lets readers find Redis's clock later than it is."""
    now_ms = store.now_ms

    async def later_ms() -> int:
        return await now_ms() + delay_ms

    monkeypatch.setattr(store, "now_ms", later_ms)


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


async def test_a_full_stream_refuses_whatever_strangers_wrote_into_it(store: Store) -> None:
    for _ in range(3):
        await store.client.xadd(store.key("admission"), {"deadline": "soon"})
    with pytest.raises(Full):
        await AdmissionQueue(store, AT_ONCE).admit(request("a"))


async def test_the_same_attempt_is_admitted_once(store: Store) -> None:
    queue = AdmissionQueue(store)
    first = await queue.admit(request("a"))
    assert await queue.admit(request("a")) == first
    assert await queue.admit(request("a", attempt=2)) != first
    assert (await queue.figures()).waiting_count == 2


@pytest.mark.parametrize("left_ms", [0, -1])
async def test_a_request_whose_deadline_has_passed_is_refused(store: Store, left_ms: int) -> None:
    with pytest.raises(Expired):
        await AdmissionQueue(store).admit(request("a"), left_ms)
    assert (await AdmissionQueue(store).figures()).waiting_count == 0


async def test_those_that_wait_in_vain_make_room_at_the_bound(store: Store) -> None:
    queue = AdmissionQueue(store, AT_ONCE)
    for name in "abc":
        await queue.admit(request(name), 1)
    due_ms = await store.now_ms() + 1
    async with asyncio.timeout(10):
        while await store.now_ms() <= due_ms:
            pass
    await queue.admit(request("d"))
    assert (await queue.figures()).waiting_count == 1


async def test_an_expired_entry_is_reported_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    await queue.admit(request("a"), HOUR_MS)
    put_forward(store, monkeypatch, HOUR_MS + 1)
    batch = await reader.read(count=8, block_ms=1000)
    assert (batch.admitted, [entry.request.request_id for entry in batch.expired]) == ((), ["a"])
    await reader.close()


@pytest.mark.parametrize("skew_ms", [-HOUR_MS, HOUR_MS])
async def test_a_reader_whose_clock_is_wrong_is_told_the_time_that_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, skew_ms: int
) -> None:
    monkeypatch.setattr("cosine.store.admission._now_ms", lambda: 2 * HOUR_MS + skew_ms)
    monkeypatch.setattr(store, "now_ms", AsyncMock(return_value=await store.now_ms()))
    await AdmissionQueue(store).admit(request("a"), HOUR_MS // 2)
    reader = AdmissionReader(store, "s1")
    (entry,) = (await reader.read(count=1, block_ms=1000)).admitted
    assert HOUR_MS // 2 <= entry.request.deadline_unix_ms - 2 * HOUR_MS - skew_ms < HOUR_MS
    await reader.close()


async def test_a_request_without_deadline_has_none_wherever_it_is_read(store: Store) -> None:
    await AdmissionQueue(store).admit(request("a"))
    reader = AdmissionReader(store, "s1")
    (entry,) = (await reader.read(count=1, block_ms=1000)).admitted
    assert entry.request.deadline_unix_ms == 0
    await reader.close()


async def test_how_long_the_first_has_waited_is_told_by_redis_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = AdmissionQueue(store)
    await queue.admit(request("a"))
    monkeypatch.setattr("time.time", lambda: 0.0)
    put_forward(store, monkeypatch, HOUR_MS)
    assert HOUR_MS <= (await queue.figures()).oldest_wait_ms < 2 * HOUR_MS


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


async def test_a_released_request_is_handed_out_again(store: Store) -> None:
    reader, other = AdmissionReader(store, "s1", AT_ONCE), AdmissionReader(store, "s2", AT_ONCE)
    await AdmissionQueue(store).admit(request("a"))
    (entry,) = (await reader.read(count=1, block_ms=1000)).admitted
    for claimer in (reader, other, reader):
        await reader.release([entry])
        await other.release([entry])
        assert (await claimer.claim(count=8)).admitted == (entry,)
    assert (await reader.claim(count=8)).admitted == ()
    await reader.close()


async def test_a_released_request_need_not_lie_still_before_another_takes_it(store: Store) -> None:
    patient = AdmissionBounds(claim_idle_ms=HOUR_MS)
    reader, other = AdmissionReader(store, "s1", patient), AdmissionReader(store, "s2", patient)
    for name in "ab":
        await AdmissionQueue(store).admit(request(name))
    first, second = (await reader.read(count=2, block_ms=1000)).admitted
    assert (await other.claim(count=8)).admitted == ()
    await reader.release([first])
    assert (await other.claim(count=8)).admitted == (first,)
    await reader.release([first])  # too late: it is no longer ours
    assert (await AdmissionReader(store, "s3", patient).claim(count=8)).admitted == ()
    await reader.ack([second])
    await reader.close()


async def test_a_release_that_does_not_reach_redis_disturbs_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = AdmissionReader(store, "s1", AT_ONCE)
    await AdmissionQueue(store).admit(request("a"))
    (entry,) = (await reader.read(count=1, block_ms=1000)).admitted
    with monkeypatch.context() as patch:
        patch.setattr(reader, "_release", AsyncMock(side_effect=RedisConnectionError("gone")))
        await reader.release([entry])
    assert (await reader.claim(count=8)).admitted == (entry,)
    await reader.close()


async def test_a_reader_that_is_interrupted_stands_in_nobodys_way(store: Store) -> None:
    reader, other = AdmissionReader(store, "s1"), AdmissionReader(store, "s2")
    assert await reader.read(count=1, block_ms=1) == Batch()
    waiting = asyncio.create_task(reader.read(count=1, block_ms=HOUR_MS))
    async with asyncio.timeout(10):
        while not await blocked_count(store):
            pass
        reader.interrupt()
        reader.interrupt()
        assert await waiting == Batch()
        while await blocked_count(store):
            pass
        await AdmissionQueue(store).admit(request("a"))
        assert len((await other.read(count=1, block_ms=1000)).admitted) == 1
        reader.interrupt()
        await AdmissionQueue(store).admit(request("b"))
        assert len((await reader.read(count=1, block_ms=1000)).admitted) == 1
    for used in (reader, other):
        await used.close()


async def blocked_count(store: Store) -> int:
    """How many clients Redis keeps waiting."""
    return int((await store.client.info("clients"))["blocked_clients"])


async def test_those_at_the_head_of_the_stream_keep_nobody_from_being_claimed(store: Store) -> None:
    reader, dead = AdmissionReader(store, "s1", AT_ONCE), AdmissionReader(store, "dead", AT_ONCE)
    for name in "abc":
        await AdmissionQueue(store, AT_ONCE).admit(request(name))
    await dead.read(count=3, block_ms=1000)
    claimed = []
    for _ in range(3):
        (entry,) = (await reader.claim(count=1)).admitted
        await reader.release([entry])
        claimed.append(entry.request.request_id)
    assert claimed == ["a", "b", "c"]
    await dead.close()


async def test_an_acknowledgement_that_did_not_arrive_is_made_up_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, reader = AdmissionQueue(store), AdmissionReader(store, "s1")
    await queue.admit(request("a"))
    batch = await reader.read(count=1, block_ms=1000)

    def away(**_: object) -> None:
        raise RedisConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.client, "pipeline", away)
        with pytest.raises(Unavailable):
            await reader.ack(batch.admitted)
    assert (await queue.figures()).waiting_count == 1
    assert (await reader.claim(count=1)).admitted == ()
    assert (await queue.figures()).waiting_count == 0
    await reader.close()


async def test_a_broken_entry_costs_no_other_one_when_redis_goes_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.client.xadd(store.key("admission"), {"deadline": "0", "request": b"\xff"})
    await AdmissionQueue(store).admit(request("a"))
    reader = AdmissionReader(store, "s1")

    def away(**_: object) -> None:
        raise RedisConnectionError("gone")

    monkeypatch.setattr(store.client, "pipeline", away)
    batch = await reader.read(count=2, block_ms=1000)
    assert [entry.request.request_id for entry in batch.admitted] == ["a"]
    await reader.close()


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


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline": "0", "request": b"\xff"},
        {"deadline": "0"},
        {"deadline": "0", "request": AdmittedRequest(token_ids=[1], prompt_length=2).SerializeToString()},
    ],
    ids=["bytes", "nothing", "a prompt longer than its text"],
)
async def test_an_entry_that_is_no_request_is_dropped(store: Store, fields: dict[Any, Any]) -> None:
    await store.client.xadd(store.key("admission"), fields)
    reader = AdmissionReader(store, "s1")
    assert (await reader.read(count=1, block_ms=1000)).admitted == ()
    assert (await AdmissionQueue(store).figures()).waiting_count == 0
    await reader.close()
