"""What outlives a stream: a request itself, to resume it by its id alone, and the count of its attempts.

The record's bytes are the gateway's business. It is written with the admission of the request, or not at all, and
lives as long as a client may reasonably come back, which is not long once there is nothing to come back for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from cosine.core.errors import Unavailable
from cosine.store.connection import Store

FINISHED_TTL_S = 120  # longer than AdmissionBounds.once_ttl_s: no attempt's number is used again while it is known
FINISHED_MAX = 1024  # not yet told to Redis; beyond that, records live as long as others
TOGETHER_MAX = 64


def keys_of(store: Store, request_id: str) -> tuple[str, str]:
    """Where the record of a request is, and where the count of its attempts."""
    return store.key("request", request_id), store.key("attempts", request_id)


class RequestRecords:
    """Requests by id, shared by all gateways of the mesh; `AdmissionQueue.admit` writes them. `run` must run for
    `finished` to have an effect."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._finished: deque[str] = deque(maxlen=FINISHED_MAX)
        self._changed = asyncio.Event()

    async def next_attempt(self, request_id: str) -> int:
        """The number of an attempt that nobody else has: 1, then one more each time. It is soon forgotten where the
        attempt is not admitted. Raises Unavailable."""
        _, attempts = keys_of(self._store, request_id)
        async with self._store.reaching(), self._store.client.pipeline(transaction=True) as pipeline:
            pipeline.incr(attempts)
            pipeline.expire(attempts, FINISHED_TTL_S, nx=True)
            attempt, _ = await pipeline.execute()
        return int(attempt)

    async def load(self, request_id: str) -> bytes | None:
        """The request's record, or None where it is unknown or too old. Raises Unavailable."""
        async with self._store.reaching():
            record: Any = await self._store.client.get(keys_of(self._store, request_id)[0])
        return bytes(record) if record is not None else None

    def finished(self, request_id: str) -> None:
        """The client was sent all there will ever be; the record stays for `FINISHED_TTL_S`, should the last words be
        lost."""
        self._finished.append(request_id)
        self._changed.set()

    async def run(self) -> None:
        """Tells Redis of finished requests, for ever; nobody waits for it, and what it cannot tell expires later."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._finished:
                count = min(len(self._finished), TOGETHER_MAX)
                with suppress(Unavailable):
                    await self._shorten([self._finished.popleft() for _ in range(count)])

    async def _shorten(self, request_ids: list[str]) -> None:
        async with self._store.reaching(), self._store.client.pipeline(transaction=False) as pipeline:
            for request_id in request_ids:
                for key in keys_of(self._store, request_id):
                    pipeline.expire(key, FINISHED_TTL_S, lt=True)
            await pipeline.execute()
