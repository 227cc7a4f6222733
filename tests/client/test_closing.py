"""A synchronous client that is closed while other threads use it: they are told, and none waits for ever."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest

from cosine.client import Client, async_client
from cosine.core.errors import Cancelled

PATIENCE_S = 20.0
NOWHERE = "127.0.0.1:1"


def test_a_call_that_waits_for_its_next_try_ends_when_another_thread_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, outcome = threading.Event(), queue.SimpleQueue[Any]()

    async def sleep(_seconds: float) -> None:
        waits.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            outcome.put(client.complete("hi"))
        except BaseException as error:
            outcome.put(error)

    monkeypatch.setattr(async_client.asyncio, "sleep", sleep)
    client = Client(NOWHERE)
    threading.Thread(target=call, daemon=True).start()
    assert waits.wait(PATIENCE_S)
    client.close()
    error = outcome.get(timeout=PATIENCE_S)
    assert isinstance(error, Cancelled)
    assert error.reason == "CLIENT_CLOSED"


def test_no_call_begins_while_a_client_is_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closing, may_end = threading.Event(), threading.Event()
    client = Client(NOWHERE)

    async def close() -> None:
        closing.set()
        await asyncio.to_thread(may_end.wait, PATIENCE_S)

    monkeypatch.setattr(client._client, "close", close)
    closer = threading.Thread(target=client.close)
    closer.start()
    assert closing.wait(PATIENCE_S)
    with pytest.raises(Cancelled, match="closed"):
        client.peers()
    may_end.set()
    closer.join(PATIENCE_S)
    assert not closer.is_alive()
