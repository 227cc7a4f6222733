"""The registry: who lives, who drains, who is lost, and what a watcher sees of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cosine.core.errors import Mismatch, Unavailable
from cosine.store.connection import Store
from cosine.store.registry import DRAINING, LOST, SERVING, LearnedTime, PeerRecord, Registrar, Registry, RegistryTimes

QUICK = RegistryTimes(beat_s=0.02, lost_s=0.5, forget_s=1.5)
DRAFTER = PeerRecord("drafter", "drafter-1", "127.0.0.1:5", incarnation=2**63 + 1, model_id="toy", vocab_size=257)
TIME = LearnedTime("v", 15.5, 0.25, 1.5)
Views = AsyncIterator[tuple[PeerRecord, ...]]


async def until(views: Views, states: list[str]) -> tuple[PeerRecord, ...]:
    """The first view in which the peers have these states."""
    async with asyncio.timeout(10):
        async for view in views:
            if [peer.state for peer in view] == states:
                return view
    raise AssertionError("a watch ended")


async def test_a_registered_peer_is_listed_whole(store: Store) -> None:
    registry = Registry(store)
    await registry.register(DRAFTER)
    assert await registry.peers() == await registry.peers("drafter") == (DRAFTER,)
    assert await registry.peers("verifier") == ()


async def test_times_of_passes_are_listed_with_their_peer(store: Store) -> None:
    registry = Registry(store)
    measured = replace(DRAFTER, base_ms=0.5, row_ms=0.0, learned=(TIME, replace(TIME, peer_id="w")))
    await registry.register(measured)
    assert await registry.peers() == (measured,)


async def test_a_record_of_a_later_release_is_read_without_what_is_new(store: Store) -> None:
    registry = Registry(store)
    known = replace(DRAFTER, learned=(TIME,))
    await registry.register(known)
    peers = store.key("peers")
    record = json.loads(await store.client.hget(peers, DRAFTER.peer_id))
    record["temper"] = record["learned"][0]["temper"] = "calm"
    await store.client.hset(peers, DRAFTER.peer_id, json.dumps(record))
    assert await registry.peers() == (known,)


async def test_learned_times_of_a_release_that_tells_less_are_read(store: Store) -> None:
    registry = Registry(store)
    await registry.register(replace(DRAFTER, learned=(TIME,)))
    peers = store.key("peers")
    record = json.loads(await store.client.hget(peers, DRAFTER.peer_id))
    del record["learned"][0]["kilotoken_ms"]
    await store.client.hset(peers, DRAFTER.peer_id, json.dumps(record))
    (peer,) = await registry.peers()
    assert peer.learned == (replace(TIME, kilotoken_ms=0.0),)


WHOLE = {**asdict(DRAFTER), "peer_id": "odd", "incarnation": "7"}
MALFORMED: dict[str, bytes] = {
    "no text": b"\xff",
    "no object": b"[1]",
    "a number": b"1",
    "too deep": b"[" * 100_000,
    "no incarnation": json.dumps({key: value for key, value in WHOLE.items() if key != "incarnation"}).encode(),
    **{
        f"{field} {value!r}": json.dumps({**WHOLE, field: value}).encode()
        for field, value in [
            ("incarnation", "first"),
            ("incarnation", "-1"),
            ("role", None),
            ("address", 5),
            ("model_id", "\ud800"),
            ("state", []),
            ("tokens_max", "many"),
            ("vocab_size", -1),
            ("load", 1 << 32),
            ("base_ms", "slow"),
            ("row_ms", float("nan")),
            ("learned", 5),
            ("learned", [{"peer_id": "v"}]),
            ("learned", [{"peer_id": "v", "base_ms": 1.0, "row_ms": None}]),
            ("learned", [{"peer_id": "v", "base_ms": 1.0, "row_ms": 1.0, "kilotoken_ms": -1.0}]),
        ]
    },
}


@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED)
async def test_a_record_that_cannot_be_read_is_left_out_and_named_once(store: Store, record: bytes) -> None:
    registry = Registry(store)
    await registry.register(DRAFTER)
    seconds, _ = await store.client.time()
    await store.client.hset(store.key("peers"), "odd", record)
    await store.client.hset(store.key("seen"), "odd", seconds * 1000)
    with capture_logs() as logs:
        views = registry.watch()
        assert await anext(views) == await registry.peers() == (DRAFTER,)
        await views.aclose()
    assert [line["record"] for line in logs] == ["odd"]


async def test_a_record_that_has_become_readable_is_listed(store: Store) -> None:
    registry = Registry(store)
    await registry.register(DRAFTER)
    for record in (b"[1]", b"{"):
        await store.client.hset(store.key("peers"), DRAFTER.peer_id, record)
        assert await registry.peers() == ()
        await registry.beat(DRAFTER)
        assert await registry.peers() == (DRAFTER,)


async def test_a_peer_leaves_past_a_record_that_cannot_be_read(store: Store) -> None:
    registry = Registry(store)
    await store.client.hset(store.key("peers"), DRAFTER.peer_id, b"[1]")
    await registry.leave(DRAFTER)
    assert await registry.peers() == ()


async def test_a_heartbeat_time_that_is_none_counts_as_long_ago(store: Store) -> None:
    registry = Registry(store)
    await registry.register(DRAFTER)
    await store.client.hset(store.key("seen"), DRAFTER.peer_id, "yesterday")
    assert await registry.peers() == ()
    await registry.register(DRAFTER)
    await store.client.hset(store.key("seen"), DRAFTER.peer_id, "yesterday")
    await registry.beat(DRAFTER)
    assert await registry.peers() == (DRAFTER,)


async def test_peers_are_sorted_by_role_and_id(store: Store) -> None:
    registry = Registry(store)
    others = [replace(DRAFTER, role="verifier", peer_id="a"), replace(DRAFTER, peer_id="drafter-0")]
    for record in (DRAFTER, *others):
        await registry.register(record)
    assert [peer.peer_id for peer in await registry.peers()] == ["drafter-0", "drafter-1", "a"]


async def test_a_silent_peer_is_lost_then_forgotten(store: Store) -> None:
    registry = Registry(store, QUICK)
    await registry.register(DRAFTER)
    views = registry.watch()
    await until(views, [SERVING])
    await until(views, [LOST])
    await until(views, [])
    await views.aclose()


async def test_a_restarted_peer_takes_its_name_over(store: Store) -> None:
    registry, restarted = Registry(store), replace(DRAFTER, incarnation=7)
    await registry.register(DRAFTER)
    await registry.register(restarted)
    with pytest.raises(Mismatch, match="drafter-1"):
        await registry.beat(DRAFTER)
    await registry.leave(DRAFTER)
    assert await registry.peers() == (restarted,)


async def test_heartbeats_rebuild_a_registry_that_redis_lost(store: Store) -> None:
    registry = Registry(store)
    await registry.register(DRAFTER)
    await store.client.flushall()
    await registry.beat(replace(DRAFTER, load=3))
    assert [peer.load for peer in await registry.peers()] == [3]


async def test_a_registrar_registers_drains_and_leaves(store: Store) -> None:
    registry = Registry(store)
    registrar = Registrar(registry, replace(DRAFTER, address=""), lambda: (TIME,))
    views = registry.watch("drafter")
    await until(views, [])
    running = asyncio.create_task(registrar.run("127.0.0.1:9", lambda: 4))
    (seen,) = await until(views, [SERVING])
    assert (seen.address, seen.load, seen.learned) == ("127.0.0.1:9", 4, (TIME,))
    await registrar.drain()
    await until(views, [DRAINING])
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await until(views, [])
    await views.aclose()


async def test_a_registry_that_is_away_is_spoken_of_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(store, RegistryTimes(beat_s=0.0))
    beats, enough = [0], asyncio.Event()

    async def write(record: PeerRecord, takes_over: bool) -> bool:
        beats[0] += 1
        if beats[0] % 5:
            raise Unavailable("STORE_UNREACHABLE", "gone")
        if beats[0] == 10:
            enough.set()
        return True

    monkeypatch.setattr(registry, "_write", write)
    with capture_logs() as logs:
        running = asyncio.create_task(Registrar(registry, DRAFTER).run("127.0.0.1:9"))
        async with asyncio.timeout(10):
            await enough.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "waiting for the registry, until then no other peer finds this one"),
        ("info", "registry reached"),
        ("warning", "cannot reach the registry"),
        ("info", "registry reached again"),
    ]


async def test_a_registrar_whose_name_was_taken_ends(store: Store) -> None:
    registry = Registry(store, QUICK)
    running = asyncio.create_task(Registrar(registry, DRAFTER).run("127.0.0.1:9"))
    views = registry.watch()
    await until(views, [SERVING])
    await registry.register(replace(DRAFTER, incarnation=1))
    with pytest.raises(Mismatch):
        async with asyncio.timeout(10):
            await running
    await views.aclose()


@pytest.mark.parametrize("moved", [{"load": 9}, {"learned": (TIME,)}], ids=str)
async def test_what_moves_all_the_time_is_no_change(
    store: Store, moved: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(store, RegistryTimes(beat_s=0.01))
    await registry.register(DRAFTER)
    views = registry.watch()
    await until(views, [SERVING])
    read, looked = registry._read, asyncio.Event()

    async def read_and_tell(role: str | None) -> tuple[bytes, tuple[PeerRecord, ...]]:
        found = await read(role)
        if found[1] == (replace(DRAFTER, **moved),):
            looked.set()
        return found

    monkeypatch.setattr(registry, "_read", read_and_tell)
    await registry.beat(replace(DRAFTER, **moved))
    next_view = asyncio.ensure_future(anext(views))
    async with asyncio.timeout(10):
        await looked.wait()
        await registry.beat(replace(DRAFTER, **moved, state=DRAINING))
        assert await next_view == (replace(DRAFTER, **moved, state=DRAINING),)
    await views.aclose()


async def test_what_was_seen_last_holds_while_redis_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(store, RegistryTimes(beat_s=0.01))
    await registry.register(DRAFTER)
    views = registry.watch()
    await until(views, [SERVING])
    away, asked = asyncio.Event(), asyncio.Event()
    read = registry._read

    async def read_unless_away(role: str | None) -> tuple[bytes, tuple[PeerRecord, ...]]:
        if away.is_set():
            asked.set()
            raise Unavailable("STORE_UNREACHABLE", "gone")
        return await read(role)

    monkeypatch.setattr(registry, "_read", read_unless_away)
    away.set()
    following = asyncio.create_task(until(views, [DRAINING]))
    async with asyncio.timeout(10):
        await asked.wait()
    assert not following.done()
    await registry.beat(replace(DRAFTER, state=DRAINING))
    away.clear()
    await following
    await views.aclose()


async def test_who_watches_before_redis_is_there_claims_to_know_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(store, RegistryTimes(beat_s=0.01))
    await registry.register(DRAFTER)
    read, tries = registry._read, [0]

    async def read_at_the_third_try(role: str | None) -> tuple[bytes, tuple[PeerRecord, ...]]:
        tries[0] += 1
        if tries[0] < 3:
            raise Unavailable("STORE_UNREACHABLE", "gone")
        return await read(role)

    monkeypatch.setattr(registry, "_read", read_at_the_third_try)
    with capture_logs() as logs:
        views = registry.watch()
        assert await anext(views) == (DRAFTER,)
        await views.aclose()
    assert [line["event"] for line in logs] == ["registry not reached yet, no peer is known"]


async def test_a_redis_that_comes_back_empty_loses_no_peer_that_lives(store: Store) -> None:
    registry = Registry(store, RegistryTimes(beat_s=0.01, lost_s=0.3))
    other = replace(DRAFTER, peer_id="drafter-2")
    await registry.register(DRAFTER)
    await registry.register(other)
    views = registry.watch()
    await until(views, [SERVING, SERVING])
    await store.client.flushall()
    await registry.beat(replace(DRAFTER, state=DRAINING))
    assert [peer.state for peer in await anext(views)] == [DRAINING, SERVING]
    (left,) = await until(views, [LOST])  # nobody beats any more; drafter-2, which never did, is gone
    assert left.peer_id == "drafter-1"
    await views.aclose()
