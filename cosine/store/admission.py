"""The door of the mesh: a bounded Redis stream of admitted requests, and the consumer group of schedulers behind it.

One script decides at the door (deadline, repetition, bound) before it appends, so nothing is ever trimmed unread. A
scheduler acknowledges an entry as soon as it has told the gateway that it has taken the request: from then on the
gateway holds the truth and admits again where the scheduler is lost. Entries of a scheduler that died in between are
claimed by another. The length of the stream is therefore the number of requests that wait.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cosine.core.errors import Expired, Full, Unavailable
from cosine.store.connection import Arguments, Store
from cosine.v1.scheduler_pb2 import AdmittedRequest

GROUP = "schedulers"
log = structlog.get_logger()
_T = TypeVar("_T")

_ADMIT = """
local stream, once = KEYS[1], KEYS[2]
local bound, deadline, request, once_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if deadline > 0 and deadline <= now then return {'EXPIRED', ''} end
local known = redis.call('GET', once)
if known then return {'ADMITTED', known} end
local waiting = redis.call('XLEN', stream)
if waiting >= bound then
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', bound)) do
    local due = tonumber(entry[2][2]) or 0
    if due > 0 and due <= now then waiting = waiting - redis.call('XDEL', stream, entry[1]) end
  end
end
if waiting >= bound then return {'FULL', tostring(waiting)} end
local id = redis.call('XADD', stream, '*', 'deadline', ARGV[2], 'request', request)
redis.call('SET', once, id, 'EX', once_ttl)
return {'ADMITTED', id}
"""


@dataclass(frozen=True, slots=True)
class AdmissionBounds:
    """`waiting_max` requests wait at most; who holds an entry unacknowledged for `claim_idle_ms` is taken for dead. An
    attempt that comes twice within `once_ttl_s`, since Redis's answer was lost, is appended once."""

    waiting_max: int = 256
    retry_delay_ms: int = 500
    once_ttl_s: int = 60
    claim_idle_ms: int = 5000
    consumer_idle_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """One entry of the stream."""

    entry_id: str
    request: AdmittedRequest


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries handed to one scheduler; `expired` are those whose deadline passed, to be reported and acknowledged."""

    admitted: tuple[Admitted, ...] = ()
    expired: tuple[Admitted, ...] = ()


@dataclass(frozen=True, slots=True)
class AdmissionFigures:
    """What autoscaling looks at. `oldest_wait_ms` is 0 where nobody waits."""

    waiting_count: int
    oldest_wait_ms: int


class AdmissionQueue:
    """The gateway's side: requests go in, or are refused."""

    def __init__(self, store: Store, bounds: AdmissionBounds = AdmissionBounds()) -> None:
        self._store = store
        self._bounds = bounds
        self._stream = store.key("admission")
        self._script = store.client.register_script(_ADMIT)

    async def admit(self, request: AdmittedRequest) -> str:
        """Appends the request and returns its entry id; the same request and attempt is appended once.

        Raises Full where `waiting_max` requests wait, Expired where the deadline has passed, Unavailable.
        """
        once = self._store.key("once", request.request_id, str(request.attempt))
        bounds = self._bounds
        arguments: Arguments = [
            bounds.waiting_max,
            request.deadline_unix_ms,
            request.SerializeToString(),
            bounds.once_ttl_s,
        ]
        with self._store.reaching():
            verdict, value = await self._script(keys=[self._stream, once], args=arguments)
        if verdict == b"FULL":
            raise Full(
                "ADMISSION_FULL",
                f"{int(value)} requests wait already, the bound is {bounds.waiting_max}; try again later",
                {"waiting": str(int(value)), "bound": str(bounds.waiting_max)},
                bounds.retry_delay_ms,
            )
        if verdict == b"EXPIRED":
            raise Expired(
                "DEADLINE_EXCEEDED", "the deadline passed before the request could be admitted; allow more time"
            )
        return str(value.decode())

    async def is_waiting(self, entry_id: str) -> bool:
        """False once a scheduler has acknowledged the entry (or it was withdrawn, or Redis lost it)."""
        with self._store.reaching():
            return bool(await self._store.client.xrange(self._stream, entry_id, entry_id, count=1))

    async def withdraw(self, entry_id: str) -> None:
        """Takes back an entry nobody waits for any more; no harm where it is gone."""
        with self._store.reaching():
            await self._store.client.xdel(self._stream, entry_id)

    async def figures(self) -> AdmissionFigures:
        """How many wait, and for how long the first of them."""
        with self._store.reaching():
            count = await self._store.client.xlen(self._stream)
            oldest: Any = await self._store.client.xrange(self._stream, count=1)
        waited = _now_ms() - _appended_ms(oldest[0][0]) if oldest else 0
        return AdmissionFigures(int(count), max(0, waited))


class AdmissionReader:
    """One scheduler's side. `consumer` must differ between processes, restarts included (peer id and incarnation)."""

    def __init__(self, store: Store, consumer: str, bounds: AdmissionBounds = AdmissionBounds()) -> None:
        self._store = store
        self._consumer = consumer
        self._bounds = bounds
        self._stream = store.key("admission")
        self._blocking: Redis | None = None
        self._block_ms = 0
        self._held: set[str] = set()
        self._leaving: set[str] = set()
        self._cursor: Any = "0-0"

    async def read(self, count: int, block_ms: int) -> Batch:
        """Up to `count` new entries, waiting up to `block_ms` for the first. Raises Unavailable."""
        client = await self._blocking_client(block_ms)

        async def call() -> Any:
            return await client.xreadgroup(
                GROUP, self._consumer, {self._stream: ">"}, count=count, block=max(1, block_ms)
            )

        replies = await self._in_group(call)
        return await self._batch([entry for _, entries in replies or () for entry in entries])

    async def claim(self, count: int) -> Batch:
        """Takes over up to `count` entries that another scheduler has held for too long, or that have been released.

        Raises Unavailable.
        """

        async def call() -> Any:
            return await self._store.client.xautoclaim(
                self._stream, GROUP, self._consumer, self._bounds.claim_idle_ms, self._cursor, count=count
            )

        reply = await self._in_group(call)
        self._cursor = reply[0]
        await self._in_group(self._sweep)
        ours = [(entry_id, fields) for entry_id, fields in reply[1] if fields and entry_id.decode() not in self._held]
        return await self._batch(ours)

    async def ack(self, entries: Iterable[Admitted]) -> None:
        """Takes entries off the stream; from here on the gateway alone remembers the requests.

        Raises Unavailable; the next call that reaches Redis takes them off then.
        """
        await self._remove([entry.entry_id for entry in entries])

    def release(self, entry: Admitted) -> None:
        """Gives an entry up: once it has lain still for `claim_idle_ms`, `claim` hands it out again, to anybody."""
        self._held.discard(entry.entry_id)

    async def close(self) -> None:
        """Closes the blocking connection. What is not acknowledged will be claimed by another scheduler."""
        if self._blocking is not None:
            await self._blocking.aclose()
            self._blocking = None

    async def _blocking_client(self, block_ms: int) -> Redis:
        if self._blocking is None or block_ms > self._block_ms:
            await self.close()
            self._blocking, self._block_ms = self._store.reader(block_ms), block_ms
        return self._blocking

    async def _in_group(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Runs a command of the group, which is made where it is missing: at first use, or once Redis lost its data."""
        with self._store.reaching():
            try:
                return await call()
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
            try:
                await self._store.client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            return await call()

    async def _batch(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> Batch:
        now_ms = _now_ms()
        admitted: list[Admitted] = []
        expired: list[Admitted] = []
        broken: list[str] = []
        for raw_id, fields in entries:
            entry_id = raw_id.decode()
            try:
                request = _decode(fields)
            except (DecodeError, KeyError, ValueError):
                log.error("dropped an entry of the admission stream that is no request", entry=entry_id)
                broken.append(entry_id)
                continue
            late = 0 < request.deadline_unix_ms <= now_ms
            (expired if late else admitted).append(Admitted(entry_id, request))
        self._held.update(entry.entry_id for entry in (*admitted, *expired))
        with suppress(Unavailable):  # the others are ours by now
            await self._remove(broken)
        return Batch(tuple(admitted), tuple(expired))

    async def _remove(self, entry_ids: Sequence[str]) -> None:
        self._leaving.update(entry_ids)
        leaving = tuple(self._leaving)
        if not leaving:
            return
        with self._store.reaching():
            async with self._store.client.pipeline(transaction=True) as pipeline:
                pipeline.xack(self._stream, GROUP, *leaving)
                pipeline.xdel(self._stream, *leaving)
                await pipeline.execute()
        self._held.difference_update(leaving)
        self._leaving.difference_update(leaving)

    async def _sweep(self) -> None:
        """Forgets consumers that hold nothing and have been silent for long."""
        for consumer in await self._store.client.xinfo_consumers(self._stream, GROUP):
            if consumer["pending"] == 0 and consumer["idle"] > self._bounds.consumer_idle_ms:
                await self._store.client.xgroup_delconsumer(self._stream, GROUP, consumer["name"])


def _decode(fields: dict[bytes, bytes]) -> AdmittedRequest:
    request = AdmittedRequest.FromString(fields[b"request"])
    if request.prompt_length > len(request.token_ids):
        raise ValueError("the prompt is longer than the text")
    return request


def _appended_ms(entry_id: bytes) -> int:
    return int(entry_id.split(b"-")[0])


def _now_ms() -> int:
    return int(time.time() * 1000)
