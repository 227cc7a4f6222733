"""Connections: one clear error where Redis is away, and no password in it."""

from __future__ import annotations

import asyncio

import pytest

from cosine.core.errors import BadRequest, Unavailable
from cosine.store.connection import Store, mask


async def test_an_absent_redis_is_unavailable_and_named_without_its_password() -> None:
    store = Store("redis://user:secret@127.0.0.1:1/0")
    with pytest.raises(Unavailable) as caught:
        await store.ping()
    await store.close()
    assert "user:***@127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message + str(caught.value.details)


async def test_a_url_that_is_none_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="redis://HOST:PORT"):
        Store("localhost:6379")


def test_only_the_password_is_masked() -> None:
    assert mask("redis://:pw@host:1") == "redis://:***@host:1"
    assert mask("unix:///tmp/redis.sock") == "unix:///tmp/redis.sock"


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
