"""What outlives a stream: a request itself, to resume it by its id alone, and the count of its attempts.

The record's bytes are the gateway's business; it lives as long as a client may reasonably come back, which is not long
once the client has been sent everything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from cosine.core.errors import Unavailable
from cosine.store.connection import Store

RECORD_TTL_S = 3600
FINISHED_TTL_S = 120  # longer than AdmissionBounds.once_ttl_s: no attempt's number is used again while it is known
FINISHED_MAX = 1024  # not yet told to Redis; beyond that, records live as long as others
TOGETHER_MAX = 64


class RequestRecords:
    """Requests by id, shared by all gateways of the mesh. `run` must run for `finished` to have an effect."""

    def __init__(self, store: Store, ttl_s: int = RECORD_TTL_S) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._finished: deque[str] = deque(maxlen=FINISHED_MAX)
        self._changed = asyncio.Event()

    async def save(self, request_id: str, record: bytes) -> int:
        """Keeps a request and returns the number of this attempt: 1, then one more each time. Raises Unavailable."""
        attempts = self._store.key("attempts", request_id)
        async with self._store.reaching(), self._store.client.pipeline(transaction=True) as pipeline:
            pipeline.set(self._store.key("request", request_id), record, ex=self._ttl_s)
            pipeline.incr(attempts)
            pipeline.expire(attempts, self._ttl_s)
            _, attempt, _ = await pipeline.execute()
        return int(attempt)

    async def load(self, request_id: str) -> bytes | None:
        """The request's record, or None where it is unknown or too old. Raises Unavailable."""
        async with self._store.reaching():
            record: Any = await self._store.client.get(self._store.key("request", request_id))
        return bytes(record) if record is not None else None

    def finished(self, request_id: str) -> None:
        """The client was sent all there is; its record stays for `FINISHED_TTL_S`, should the last words be lost."""
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
                for kind in ("request", "attempts"):
                    pipeline.expire(self._store.key(kind, request_id), FINISHED_TTL_S, lt=True)
            await pipeline.execute()
