"""Who is in the mesh: one record per peer, kept alive by heartbeats, and a watch that survives the loss of Redis.

Times are Redis's own, taken inside the scripts, so no two clocks are compared. A peer whose heartbeat is older than the
time to live is `lost`; much later it is forgotten. A restarted peer takes its name over at once, and the process it
replaced learns so from its next heartbeat. The registry names peers; it does not know what they say to each other.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import structlog

from cosine.core.errors import BadRequest, Mismatch, Unavailable
from cosine.store.connection import Arguments, Store

SERVING = "serving"
DRAINING = "draining"
LOST = "lost"

log = structlog.get_logger()

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# What cannot be read counts as absent: anybody may write to a Redis.
_RECORD = """
local function record_of(text)
  local readable, record = pcall(cjson.decode, text or '')
  return readable and type(record) == 'table' and type(record.incarnation) == 'string' and record or nil
end
"""
# An absent record is written, so that heartbeats alone rebuild a registry that Redis has lost.
_BEAT = (
    _NOW
    + _RECORD
    + """
local peers, seen = KEYS[1], KEYS[2]
local id, record, takes_over = ARGV[1], ARGV[2], ARGV[3] == '1'
local before, after = record_of(redis.call('HGET', peers, id)), cjson.decode(record)
if before and not takes_over and before.incarnation ~= after.incarnation then return 0 end
local last = tonumber(redis.call('HGET', seen, id) or 0) or 0
redis.call('HSET', peers, id, record)
redis.call('HSET', seen, id, now)
if not before or before.incarnation ~= after.incarnation or before.state ~= after.state
   or before.address ~= after.address or now - last > tonumber(ARGV[5]) then
  redis.call('PUBLISH', ARGV[4], id)
end
return 1
"""
)
_LEAVE = (
    _RECORD
    + """
local old = record_of(redis.call('HGET', KEYS[1], ARGV[1]))
if old and old.incarnation == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('PUBLISH', ARGV[3], ARGV[1])
end
"""
)
_LIST = (
    _NOW
    + """
local epoch = redis.call('GET', KEYS[3])
if not epoch then
  epoch = tostring(now)
  redis.call('SET', KEYS[3], epoch)
end
local listed, seen = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #seen, 2 do
  local age = now - (tonumber(seen[i + 1]) or 0)
  if age > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], seen[i])
    redis.call('HDEL', KEYS[2], seen[i])
  else
    local record = redis.call('HGET', KEYS[1], seen[i])
    if record then listed[#listed + 1] = {seen[i], record, age} end
  end
end
return {epoch, listed}
"""
)


@dataclass(frozen=True, slots=True)
class LearnedTime:
    """A forward pass of a peer as it has been seen to take; see `LearnedTime` in gateway.proto."""

    peer_id: str
    base_ms: float
    row_ms: float
    kilotoken_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """One peer as the registry knows it; see `PeerEntry` in gateway.proto and `Hello` in types.proto."""

    role: str
    peer_id: str
    address: str
    incarnation: int
    model_id: str = ""
    tokenizer_fingerprint: str = ""
    vocab_size: int = 0
    tokens_max: int = 0
    state: str = SERVING
    load: int = 0
    base_ms: float | None = None
    row_ms: float | None = None
    learned: tuple[LearnedTime, ...] = ()


RECORD_FIELDS = frozenset(field.name for field in fields(PeerRecord))


@dataclass(frozen=True, slots=True)
class RegistryTimes:
    """`beat_s` between heartbeats, `lost_s` until a silent peer counts as lost, `forget_s` until it is dropped."""

    beat_s: float = 1.0
    lost_s: float = 5.0
    forget_s: float = 300.0


class Registry:
    """All peers of a mesh."""

    def __init__(self, store: Store, times: RegistryTimes = RegistryTimes()) -> None:
        self.times = times
        self._store = store
        self._keys = [store.key("peers"), store.key("seen")]
        self._epoch_key = store.key("registry-epoch")
        self._channel = store.key("peers-changed")
        self._beat = store.client.register_script(_BEAT)
        self._leave = store.client.register_script(_LEAVE)
        self._list = store.client.register_script(_LIST)
        self._unreadable: set[str] = set()

    async def register(self, record: PeerRecord) -> None:
        """Enters a peer that has just started; takes the name over from an earlier process. Raises Unavailable."""
        await self._write(record, takes_over=True)

    async def beat(self, record: PeerRecord) -> None:
        """Says that the peer lives. Raises Mismatch where a later process took its name over, Unavailable."""
        if not await self._write(record, takes_over=False):
            raise Mismatch(
                "PEER_ID_TAKEN",
                f"another process has registered as {record.peer_id!r}; give each peer its own peer_id",
                {"peer_id": record.peer_id},
            )

    async def leave(self, record: PeerRecord) -> None:
        """Takes the peer out at once, unless a later process has its name. Raises Unavailable."""
        async with self._store.reaching():
            await self._leave(keys=self._keys, args=[record.peer_id, str(record.incarnation), self._channel])

    async def peers(self, role: str | None = None) -> tuple[PeerRecord, ...]:
        """All peers, or those of one role, lost ones included, sorted by role and id. Raises Unavailable."""
        _, peers = await self._read(role)
        return peers

    async def watch(self, role: str | None = None) -> AsyncGenerator[tuple[PeerRecord, ...], None]:
        """Yields all peers of a role now and whenever they change (load and learned times apart), for ever.

        While Redis is away nothing is yielded: what was seen last still holds. Where Redis comes back without its data,
        it holds until the peers have had `lost_s` to say that they live.
        """
        memory = _Memory(self.times.lost_s)
        async with self._changes() as changes:
            while True:
                try:
                    epoch, listed = await self._read(role)
                    peers = memory.merge(epoch, listed, asyncio.get_running_loop().time())
                    if memory.is_news(peers):
                        yield peers
                except Unavailable as error:
                    memory.lose(error)
                await self._next_hint(changes)

    async def _read(self, role: str | None) -> tuple[bytes, tuple[PeerRecord, ...]]:
        """The peers, and what names the data they come from: another name means that Redis has lost its data."""
        async with self._store.reaching():
            keys = [*self._keys, self._epoch_key]
            epoch, listed = await self._list(keys=keys, args=[int(self.times.forget_s * 1000)])
        records = self._readable([(name.decode(errors="replace"), told, int(age_ms)) for name, told, age_ms in listed])
        return epoch, _sorted(record for record in records if role is None or record.role == role)

    async def _write(self, record: PeerRecord, takes_over: bool) -> bool:
        arguments: Arguments = [
            record.peer_id,
            _encode(record),
            int(takes_over),
            self._channel,
            int(self.times.lost_s * 1000),
        ]
        async with self._store.reaching():
            return bool(await self._beat(keys=self._keys, args=arguments))

    def _readable(self, listed: Sequence[tuple[str, bytes, int]]) -> Iterator[PeerRecord]:
        """The peers behind (id, record, age in ms); who wrote what cannot be read is left out, and named once."""
        self._unreadable.intersection_update(name for name, _, _ in listed)
        for name, encoded, age_ms in listed:
            try:
                record = decode(encoded)
            except BadRequest as error:
                if name not in self._unreadable:
                    log.error("peer left out, its record cannot be read", record=name, reason=error.message)
                self._unreadable.add(name)
                continue
            self._unreadable.discard(name)
            yield replace(record, state=LOST) if age_ms > self.times.lost_s * 1000 else record

    @asynccontextmanager
    async def _changes(self) -> AsyncIterator[Any]:
        changes: Any = self._store.client.pubsub(ignore_subscribe_messages=True)
        try:
            yield changes
        finally:
            with suppress(Unavailable):
                async with self._store.reaching():
                    await changes.aclose()

    async def _next_hint(self, changes: Any) -> None:
        """Waits for word of a change, at most one heartbeat; a hint may be lost, the pace never is."""
        try:
            async with self._store.reaching(self.times.beat_s):
                if not changes.subscribed:
                    await changes.subscribe(self._channel)
                await changes.get_message(timeout=self.times.beat_s)
        except Unavailable:
            await asyncio.sleep(self.times.beat_s)


class _Memory:
    """What one watch has seen: tells news from repetition, and keeps peers that only Redis has forgotten."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._epoch: bytes | None = None
        self._last: tuple[PeerRecord, ...] | None = None
        self._kept: tuple[PeerRecord, ...] = ()
        self._kept_until = 0.0
        self._away = False

    def merge(self, epoch: bytes, listed: tuple[PeerRecord, ...], now: float) -> tuple[PeerRecord, ...]:
        """What is listed, and for a while what was known before Redis lost its data."""
        self._away = False
        if epoch != self._epoch:
            self._kept, self._kept_until = self._last or (), now + self._grace_s
            self._epoch = epoch
        if now >= self._kept_until:
            return listed
        names = {peer.peer_id for peer in listed}
        return _sorted([*listed, *(peer for peer in self._kept if peer.peer_id not in names)])

    def is_news(self, peers: tuple[PeerRecord, ...]) -> bool:
        """True where more has changed than what changes all the time."""
        known = tuple(replace(peer, load=0, learned=()) for peer in peers)
        changed, self._last = known != self._last, known
        return changed

    def lose(self, error: Unavailable) -> None:
        """Redis is away; said once."""
        if not self._away and self._last is None:
            log.warning("registry not reached yet, no peer is known", reason=error.message)
        elif not self._away:
            log.warning("registry away, the peers seen last are kept", reason=error.message)
        self._away = True


class Registrar:
    """Keeps one peer registered. `record` lacks only what is known once the server listens; `learned` tells at every
    heartbeat what the peer knows of others' passes."""

    def __init__(
        self,
        registry: Registry,
        record: PeerRecord,
        learned: Callable[[], tuple[LearnedTime, ...]] = lambda: (),
    ) -> None:
        self._registry = registry
        self._record = record
        self._learned = learned
        self._nudge = asyncio.Event()
        self._away = False
        self._is_known = False

    async def run(self, address: str, load: Callable[[], int] = lambda: 0) -> None:
        """Registers and heartbeats until cancelled, then leaves. An unreachable registry is retried for ever.

        Raises Mismatch where another process takes the name over.
        """
        self._record = replace(self._record, address=address)
        write = self._registry.register
        try:
            while True:
                self._record = replace(self._record, load=load(), learned=self._learned())
                try:
                    await write(self._record)
                    write = self._registry.beat
                    self._reached()
                except Unavailable as error:
                    self._missed(error)
                await self._pause()
        except asyncio.CancelledError:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._registry.leave(self._record)
            raise

    async def drain(self) -> None:
        """Marks the peer as draining: it finishes what it has and is given nothing new."""
        self._record = replace(self._record, state=DRAINING)
        self._nudge.set()

    def _missed(self, error: Unavailable) -> None:
        """A heartbeat did not arrive; said of the first of many."""
        if not self._away and self._is_known:
            log.warning("cannot reach the registry", reason=error.message)
        elif not self._away:
            log.error("waiting for the registry, until then no other peer finds this one", reason=error.message)
        self._away = True

    def _reached(self) -> None:
        if self._away:
            log.info("registry reached again" if self._is_known else "registry reached")
        self._away, self._is_known = False, True

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._registry.times.beat_s):
                await self._nudge.wait()
        self._nudge.clear()


def _sorted(peers: Iterable[PeerRecord]) -> tuple[PeerRecord, ...]:
    return tuple(sorted(peers, key=lambda peer: (peer.role, peer.peer_id)))


def _encode(record: PeerRecord) -> str:
    # As text: the scripts' JSON would round a 64-bit number.
    return json.dumps({**asdict(record), "incarnation": str(record.incarnation)})


def decode(encoded: bytes) -> PeerRecord:
    """The record, without what only a later release has to say. Raises BadRequest where it is none."""
    try:
        return _peer(json.loads(encoded))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadRequest("PEER_RECORD", f"no record of a peer: {type(error).__name__}: {error}") from error


def _peer(told: dict[str, Any]) -> PeerRecord:
    known = {key: value for key, value in told.items() if key in RECORD_FIELDS}
    learned = tuple(_learned(entry) for entry in known.get("learned", ()))
    record = PeerRecord(**{**known, "incarnation": int(known["incarnation"]), "learned": learned})
    for text in (record.role, record.peer_id, record.address, record.model_id, record.state):
        _text(text)
    _text(record.tokenizer_fingerprint)
    for count in (record.vocab_size, record.tokens_max, record.load):
        _whole(count, bits=32)
    _whole(record.incarnation, bits=64)
    for time_ms in (record.base_ms, record.row_ms):
        _time(time_ms or 0.0)
    return record


def _learned(told: dict[str, Any]) -> LearnedTime:
    times = (told["base_ms"], told["row_ms"], told.get("kilotoken_ms", 0.0))  # the last is not told by all releases
    return LearnedTime(_text(told["peer_id"]), *map(_time, times))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()  # half a surrogate pair is refused here rather than in every message
    return value


def _whole(value: Any, bits: int) -> None:
    if not (isinstance(value, int) and 0 <= value < 1 << bits):
        raise ValueError(f"{value!r} is no whole number of {bits} bits")


def _time(value: Any) -> float:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{value!r} is no time")
    return float(value)
