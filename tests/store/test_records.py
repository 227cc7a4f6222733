"""Records of requests: kept with their admission or not at all, for as long as there is something to come back for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from cosine.core.errors import Full, Unavailable
from cosine.store.admission import AdmissionBounds, AdmissionQueue
from cosine.store.connection import Store
from cosine.store.records import FINISHED_TTL_S, RequestRecords, keys_of
from cosine.v1.scheduler_pb2 import AdmittedRequest

FULL = AdmissionBounds(waiting_max=1)  # once somebody waits


async def admitted(
    store: Store, name: str, record: bytes = b"1", bounds: AdmissionBounds = AdmissionBounds()
) -> AdmittedRequest:
    """A request that has been let in, as its next attempt."""
    request = AdmittedRequest(request_id=name, attempt=await RequestRecords(store).next_attempt(name))
    await AdmissionQueue(store, bounds).admit(request, record=record)
    return request


async def keys(store: Store) -> set[bytes]:
    """All keys of the mesh."""
    return {key async for key in store.client.scan_iter(store.key("*"))}


async def ttls_s(store: Store, name: str) -> list[int]:
    """How long a request's record and its count will be there."""
    return [int(await store.client.ttl(key)) for key in keys_of(store, name)]


async def test_a_refused_request_leaves_nothing(store: Store) -> None:
    await admitted(store, "waiting")
    before = await keys(store)
    for name in "ab":
        with pytest.raises(Full):
            await admitted(store, name, bounds=FULL)
    assert await keys(store) == before


async def test_an_admitted_request_has_its_record_and_its_count_for_as_long_as_it_can_be_resumed(store: Store) -> None:
    await admitted(store, "a", b"text", AdmissionBounds(record_ttl_s=500))
    assert await RequestRecords(store).load("a") == b"text"
    assert all(FINISHED_TTL_S < ttl_s <= 500 for ttl_s in await ttls_s(store, "a"))


async def test_a_resume_that_is_refused_costs_the_request_neither_record_nor_count(store: Store) -> None:
    await admitted(store, "a", b"first")
    with pytest.raises(Full):
        await admitted(store, "a", b"second", FULL)
    assert await RequestRecords(store).load("a") == b"first"
    assert await RequestRecords(store).next_attempt("a") == 3
    assert min(await ttls_s(store, "a")) > FINISHED_TTL_S


async def test_a_refused_attempt_takes_no_number_from_another_that_is_under_way(store: Store) -> None:
    records = RequestRecords(store)
    await admitted(store, "waiting")
    first, second = [AdmittedRequest(request_id="a", attempt=await records.next_attempt("a")) for _ in range(2)]
    with pytest.raises(Full):
        await AdmissionQueue(store, FULL).admit(first)
    assert await records.next_attempt("a") == 3
    await AdmissionQueue(store).admit(second)
    assert await records.next_attempt("a") == 4


async def test_an_attempt_that_never_comes_to_the_door_is_soon_forgotten(store: Store) -> None:
    assert await RequestRecords(store).next_attempt("a") == 1
    assert 0 < await store.client.ttl(keys_of(store, "a")[1]) <= FINISHED_TTL_S
    assert await RequestRecords(store).load("a") is None


async def test_a_count_that_redis_has_lost_goes_on_from_what_is_admitted(store: Store) -> None:
    await AdmissionQueue(store).admit(AdmittedRequest(request_id="a", attempt=5))
    assert await RequestRecords(store).next_attempt("a") == 6


async def test_a_finished_request_is_kept_for_less_time(store: Store) -> None:
    records = RequestRecords(store)
    for name in ("done", "running"):
        await admitted(store, name)
    records.finished("done")
    names = [key for name in ("done", "running") for key in keys_of(store, name)]
    telling = asyncio.create_task(records.run())
    async with asyncio.timeout(10):
        while await store.client.ttl(names[1]) > FINISHED_TTL_S:
            pass
    assert [await store.client.ttl(key) > FINISHED_TTL_S for key in names] == [False, False, True, True]
    assert await records.load("done") == b"1"
    assert AdmissionBounds().once_ttl_s < FINISHED_TTL_S
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling


async def test_finishing_lengthens_nothing_and_survives_the_loss_of_redis(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RequestRecords(store)
    await admitted(store, "brief", bounds=AdmissionBounds(record_ttl_s=30))
    shorten, tried = records._shorten, asyncio.Queue[list[str]]()

    async def shorten_unless_away(request_ids: list[str]) -> None:
        tried.put_nowait(request_ids)
        if tried.qsize() == 1:
            raise Unavailable("STORE_UNREACHABLE", "gone")
        await shorten(request_ids)
        tried.put_nowait([])

    monkeypatch.setattr(records, "_shorten", shorten_unless_away)
    telling = asyncio.create_task(records.run())
    async with asyncio.timeout(10):
        records.finished("lost")
        while not tried.qsize():
            await store.ping()
        records.finished("brief")
        while tried.qsize() < 3:
            await store.ping()
    assert 0 < await store.client.ttl(keys_of(store, "brief")[0]) <= 30
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling


async def test_a_record_is_found_by_its_id_and_its_attempts_are_counted(store: Store) -> None:
    assert await RequestRecords(store).load("a") is None
    assert [(await admitted(store, "a", record)).attempt for record in (b"1", b"2")] == [1, 2]
    assert await RequestRecords(store).load("a") == b"2"
