"""Connections: one clear error where Redis is away, and no password in it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from cosine.core.errors import BadRequest, Unavailable
from cosine.store import connection
from cosine.store.admission import AdmissionQueue, AdmissionReader
from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer, free_port
from cosine.store.records import RequestRecords
from cosine.store.registry import PeerRecord, Registry
from cosine.text.masking import mask
from cosine.v1.scheduler_pb2 import AdmittedRequest
from services.gateway.settings import GatewaySettings

PATIENCE_S = 20.0
PEER = PeerRecord("drafter", "drafter-1", "127.0.0.1:5", 1)
PROMPT = b"what nobody else shall read"


async def test_an_absent_redis_is_unavailable_and_named_without_its_password() -> None:
    store = Store("redis://user:secret@127.0.0.1:1/0")
    with pytest.raises(Unavailable) as caught:
        await store.ping()
    await store.close()
    assert "user:***@127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message + str(caught.value.details)


async def test_that_running_requests_go_on_is_said_only_where_redis_has_served() -> None:
    port = free_port()
    store = Store(f"redis://127.0.0.1:{port}")
    with pytest.raises(Unavailable) as at_start:
        await store.ping()
    assert at_start.value.message.endswith("check redis_url and that the server runs")
    with EmbeddedServer(port):
        await store.ping()
    with pytest.raises(Unavailable) as later:
        await store.ping()
    assert later.value.message.endswith("check redis_url and that the server runs; running requests go on")
    await store.close()


@pytest.fixture
async def unwilling() -> AsyncIterator[Store]:
    """A Redis that answers and refuses to write, as one does that cannot save what it has."""
    with EmbeddedServer() as server:
        store = Store(server.url)
        await store.client.config_set("min-replicas-to-write", 1)
        yield store
        await store.close()


WRITES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "heartbeat": lambda store: Registry(store).beat(PEER),
    "admission": lambda store: AdmissionQueue(store).admit(AdmittedRequest(request_id="r"), record=PROMPT),
    "attempt": lambda store: RequestRecords(store).next_attempt("r"),
    "first reader": lambda store: AdmissionReader(store, "s1").claim(1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_redis_that_refuses_to_write_is_unavailable_and_quoted(
    unwilling: Store, write: Callable[[Store], Awaitable[object]]
) -> None:
    with pytest.raises(Unavailable, match=r"\(.*NOREPLICAS.*\); put right what it says") as caught:
        await write(unwilling)
    assert caught.value.reason == "STORE_UNREACHABLE"
    assert PROMPT.decode() not in caught.value.message


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_redis_that_says_nothing_is_given_up_at_the_limit_however_often_is_tried_again(
    silent_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LIMIT_S", 0.01)
    store = Store(silent_url)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match="TimeoutError"):
            await store.ping()
    await store.close()


async def test_the_limit_holds_where_a_first_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LIMIT_S", 0.0)
    monkeypatch.setattr(connection, "INSIST_S", 0.01)
    store, never = Store("redis://127.0.0.1:1"), asyncio.Event()

    async def wait_on() -> None:
        async with store.reaching():
            with suppress(asyncio.CancelledError):
                await never.wait()
            await never.wait()

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unavailable, match="TimeoutError"):
            await wait_on()
    await store.close()


async def test_who_waits_for_news_may_wait_longer_than_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LIMIT_S", 0.0)
    with pytest.raises(Unavailable):
        async with store.reaching():
            await asyncio.Event().wait()
    async with store.reaching(blocked_s=PATIENCE_S):
        await store.client.ping()


async def test_a_url_that_is_none_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="redis://HOST:PORT"):
        Store("localhost:6379")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:1", "redis://:***@host:1"),
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:sec/ret@host:1/0", "redis://:***@host:1/0"),
        ("redis://:sec@ret@host:1", "redis://:***@host:1"),
        ("redis://:?secret#@host:1", "redis://:***@host:1"),
        ("unix:///tmp/redis.sock?password=secret", "unix:///tmp/redis.sock?password=***"),
        ("redis://host:1?db=1&password=sec@ret&protocol=2", "redis://host:1?db=1&password=***&protocol=2"),
        ("rediss://host:1?ssl_password=secret", "rediss://host:1?ssl_password=***"),
    ],
)
def test_a_password_is_masked_wherever_it_stands(url: str, shown: str) -> None:
    assert mask(url) == shown


@pytest.mark.parametrize("text", ["unix:///tmp/redis.sock", "redis://host:1/0?db=1", "127.0.0.1:0", "vanilla:depth=3"])
def test_nothing_else_is_masked(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize("url", ["redis://:sec/ret@host:1/0", "localhost:6379?password=secret"])
async def test_a_url_that_is_none_does_not_tell_its_password(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Store(url)
    assert not any(part in str(caught.value) + str(caught.value.details) for part in ("sec", "ret@"))


async def test_settings_are_printed_without_passwords() -> None:
    settings = GatewaySettings.model_construct(redis_url="unix:///tmp/redis.sock?password=secret")
    assert settings.masked()["redis_url"] == "unix:///tmp/redis.sock?password=***"


async def test_keys_of_a_mesh_share_a_hash_tag() -> None:
    store = Store("redis://127.0.0.1:1", "blue")
    assert store.key("once", "r", "1") == "cosine:{blue}:once:r:1"
    await store.close()


async def test_a_cancellation_is_never_lost_however_far_a_command_is(store: Store) -> None:
    for step_count in range(1, 100):
        fresh = Store(store.url)
        pinging = asyncio.create_task(fresh.ping())
        for _ in range(step_count):
            await asyncio.sleep(0)
        ended = pinging.done()
        pinging.cancel()
        await asyncio.wait([pinging])
        await fresh.close()
        assert pinging.cancelled() is not ended
        if ended:
            return
