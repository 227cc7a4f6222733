"""What outlives a stream: a request itself, to resume it by its id alone, and the count of its attempts.

The record's bytes are the gateway's business; it lives as long as a client may reasonably come back.
"""

from __future__ import annotations

from typing import Any

from cosine.store.connection import Store

RECORD_TTL_S = 3600


class RequestRecords:
    """Requests by id, shared by all gateways of the mesh."""

    def __init__(self, store: Store, ttl_s: int = RECORD_TTL_S) -> None:
        self._store = store
        self._ttl_s = ttl_s

    async def save(self, request_id: str, record: bytes) -> int:
        """Keeps a request and returns the number of this attempt: 1, then one more each time. Raises Unavailable."""
        attempts = self._store.key("attempts", request_id)
        with self._store.reaching():
            async with self._store.client.pipeline(transaction=True) as pipeline:
                pipeline.set(self._store.key("request", request_id), record, ex=self._ttl_s)
                pipeline.incr(attempts)
                pipeline.expire(attempts, self._ttl_s)
                _, attempt, _ = await pipeline.execute()
        return int(attempt)

    async def load(self, request_id: str) -> bytes | None:
        """The request's record, or None where it is unknown or too old. Raises Unavailable."""
        with self._store.reaching():
            record: Any = await self._store.client.get(self._store.key("request", request_id))
        return bytes(record) if record is not None else None
