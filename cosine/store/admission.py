"""The door of the mesh: a bounded Redis stream of admitted requests, and the consumer group of schedulers behind it.

One script decides at the door (repetition, bound) before it appends, so nothing is ever trimmed unread, and keeps the
request's record with it: who is refused leaves nothing, who is admitted can be resumed. A scheduler acknowledges an
entry as soon as it has told the gateway that it has taken the request: from then on the gateway holds the truth and
admits again where the scheduler is lost. Entries of a scheduler that died in between are claimed by another. The length
of the stream is therefore the number of requests that wait.

Deadlines and ages on the stream are told by Redis's clock alone: a gateway says how much time is left, a reader turns
that into its own time. So clocks that differ cost no request its life.
"""

from __future__ import annotations

import asyncio
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
from cosine.store.records import keys_of
from cosine.v1.scheduler_pb2 import AdmittedRequest

GROUP = "schedulers"
log = structlog.get_logger()
_T = TypeVar("_T")

_ADMIT = """
local stream, once, record, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local bound, left, request, once_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local attempt, recorded, record_ttl = ARGV[5], ARGV[6], ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('GET', once)
if known then return {'ADMITTED', known} end
local waiting = redis.call('XLEN', stream)
if waiting >= bound then
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', bound)) do
    local due = tonumber(entry[2][2]) or 0
    if due > 0 and due <= now then waiting = waiting - redis.call('XDEL', stream, entry[1]) end
  end
end
if waiting >= bound then
  if attempt == '1' and redis.call('GET', attempts) == '1' then redis.call('DEL', attempts) end
  return {'FULL', tostring(waiting)}
end
local deadline = left > 0 and string.format('%.0f', now + left) or '0'
local id = redis.call('XADD', stream, '*', 'deadline', deadline, 'request', request)
redis.call('SET', once, id, 'EX', once_ttl)
redis.call('SET', record, recorded, 'EX', record_ttl)
local count = math.max(tonumber(attempt), tonumber(redis.call('GET', attempts)) or 0)
redis.call('SET', attempts, count, 'EX', record_ttl)
return {'ADMITTED', id}
"""
# Only what is still ours: another may have claimed it meanwhile.
_RELEASE = """
local stream, group, consumer, idle_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
for i = 4, #ARGV do
  if #redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1, consumer) > 0 then
    redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'IDLE', idle_ms, 'JUSTID')
  end
end
"""


@dataclass(frozen=True, slots=True)
class AdmissionBounds:
    """`waiting_max` requests wait at most; who holds an entry unacknowledged for `claim_idle_ms` is taken for dead. An
    attempt that comes twice within `once_ttl_s`, since Redis's answer was lost, is appended once. A record is kept for
    `record_ttl_s`."""

    waiting_max: int = 256
    retry_delay_ms: int = 500
    once_ttl_s: int = 60
    record_ttl_s: int = 3600
    claim_idle_ms: int = 5000
    consumer_idle_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """One entry of the stream. The request's deadline is on the clock of the process that has read it."""

    entry_id: str
    request: AdmittedRequest


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries handed to one scheduler. `expired` are those whose time is over, to be acknowledged: their gateways,
    whose clocks started a little earlier, have answered them by then."""

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

    async def admit(self, request: AdmittedRequest, left_ms: int | None = None, record: bytes = b"") -> str:
        """Appends the request and returns its entry id; the same request and attempt is appended once.

        Nobody waits for it after `left_ms`, however long that is where it is None; the request's own deadline field is
        set by who reads it. `record` is what `RequestRecords.load` will find. Raises Full where `waiting_max` requests
        wait, and leaves no trace of a new request then, Expired where no time is left, Unavailable.
        """
        if left_ms is not None and left_ms <= 0:
            raise Expired(
                "DEADLINE_EXCEEDED", "the deadline passed before the request could be admitted; allow more time"
            )
        once = self._store.key("once", request.request_id, str(request.attempt))
        keys = [self._stream, once, *keys_of(self._store, request.request_id)]
        bounds = self._bounds
        arguments: Arguments = [
            bounds.waiting_max,
            left_ms or 0,
            request.SerializeToString(),
            bounds.once_ttl_s,
            request.attempt,
            record,
            bounds.record_ttl_s,
        ]
        async with self._store.reaching():
            verdict, value = await self._script(keys=keys, args=arguments)
        if verdict == b"FULL":
            raise Full(
                "ADMISSION_FULL",
                f"{int(value)} requests wait already, the bound is {bounds.waiting_max}; try again later",
                {"waiting": str(int(value)), "bound": str(bounds.waiting_max)},
                bounds.retry_delay_ms,
            )
        return str(value.decode())

    async def is_waiting(self, entry_id: str) -> bool:
        """False once a scheduler has acknowledged the entry (or it was withdrawn, or Redis lost it)."""
        async with self._store.reaching():
            return bool(await self._store.client.xrange(self._stream, entry_id, entry_id, count=1))

    async def withdraw(self, entry_id: str) -> None:
        """Takes back an entry nobody waits for any more; no harm where it is gone."""
        async with self._store.reaching():
            await self._store.client.xdel(self._stream, entry_id)

    async def figures(self) -> AdmissionFigures:
        """How many wait, and for how long the first of them."""
        async with self._store.reaching():
            count = await self._store.client.xlen(self._stream)
            oldest: Any = await self._store.client.xrange(self._stream, count=1)
        waited = await self._store.now_ms() - _appended_ms(oldest[0][0]) if oldest else 0
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
        self._waiting: asyncio.Timeout | None = None
        self._held: set[str] = set()
        self._leaving: set[str] = set()
        self._cursor: Any = "0-0"
        self._release = store.client.register_script(_RELEASE)

    async def read(self, count: int, block_ms: int) -> Batch:
        """Up to `count` new entries, waiting for the first up to `block_ms`, or until `interrupt`.

        Raises Unavailable.
        """
        client = await self._blocking_client(block_ms)

        async def call() -> Any:
            return await client.xreadgroup(
                GROUP, self._consumer, {self._stream: ">"}, count=count, block=max(1, block_ms)
            )

        replies: Any = ()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as self._waiting:
                    replies = await self._in_group(call, block_ms / 1000)
        finally:
            self._waiting = None
        return await self._batch([entry for _, entries in replies or () for entry in entries])

    def interrupt(self) -> None:
        """Ends a `read` that waits, so that Redis hands what comes next to somebody else."""
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0.0)

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

    async def release(self, entries: Iterable[Admitted]) -> None:
        """Gives entries up: the next `claim` hands them out again, to anybody; where Redis is away, only once they have
        lain still for `claim_idle_ms`."""
        entry_ids = [entry.entry_id for entry in entries]
        self._held.difference_update(entry_ids)
        if entry_ids:
            with suppress(Unavailable):
                async with self._store.reaching():
                    arguments: Arguments = [GROUP, self._consumer, self._bounds.claim_idle_ms, *entry_ids]
                    await self._release(keys=[self._stream], args=arguments)

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

    async def _in_group(self, call: Callable[[], Awaitable[_T]], blocked_s: float = 0.0) -> _T:
        """Runs a command of the group, which is made where it is missing: at first use, or once Redis lost its data."""
        async with self._store.reaching(blocked_s):
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
        now_ms = await self._store.now_ms() if entries else 0
        admitted: list[Admitted] = []
        expired: list[Admitted] = []
        broken: list[str] = []
        for raw_id, fields in entries:
            entry_id = raw_id.decode()
            try:
                left_ms = _left_ms(fields, now_ms)
                request = _decode(fields, left_ms)
            except (DecodeError, KeyError, ValueError):
                log.error("dropped an entry of the admission stream that is no request", entry=entry_id)
                broken.append(entry_id)
                continue
            late = left_ms is not None and left_ms <= 0
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
        async with self._store.reaching(), self._store.client.pipeline(transaction=True) as pipeline:
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


def _left_ms(fields: dict[bytes, bytes], now_ms: int) -> int | None:
    deadline_ms = int(fields[b"deadline"])
    return deadline_ms - now_ms if deadline_ms > 0 else None


def _decode(fields: dict[bytes, bytes], left_ms: int | None) -> AdmittedRequest:
    request = AdmittedRequest.FromString(fields[b"request"])
    if request.prompt_length > len(request.token_ids):
        raise ValueError("the prompt is longer than the text")
    request.deadline_unix_ms = 0 if left_ms is None else max(1, _now_ms() + left_ms)
    return request


def _appended_ms(entry_id: bytes) -> int:
    return int(entry_id.split(b"-")[0])


def _now_ms() -> int:
    """Unix time by our own clock, for what never leaves the process."""
    return int(time.time() * 1000)
