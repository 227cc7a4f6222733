"""Where schedulers put together what requests taught them: one key per mesh, which Redis forgets when nobody asks.

What is kept and how it adds up is `cosine.core.knowledge`'s; here it becomes bytes, and the sum is written only where
nobody else has written since it was read, else made anew. Ages are told by Redis's own clock. The key's bounds are the
core's: so many clusters, tallies and writers. Losing Redis, or what it holds, costs the sharing and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import structlog
from redis.exceptions import RedisError

from cosine.core.clusters import DIMENSION, Cluster, Tally
from cosine.core.errors import Unavailable
from cosine.core.knowledge import Changes, Knowledge, Shared, merged
from cosine.store.connection import Store

FORMAT = "1"  # in the key's name, so that old and new schedulers leave each other alone
TTL_S = 86_400
PAUSE_S = 5.0
FINISH_S = 1.0
WRITES_MAX = 8
DIGITS = 6

log = structlog.get_logger()

_READ = """
local time = redis.call('TIME')
return {redis.call('GETEX', KEYS[1], 'EX', ARGV[1]), time[1], time[2]}
"""
_WRITE = """
if redis.sha1hex(redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class SharedKnowledge:
    """The key that all schedulers of a mesh add to."""

    def __init__(self, store: Store, ttl_s: int = TTL_S) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._key = store.key("knowledge", FORMAT)
        self._read = store.client.register_script(_READ)
        self._write = store.client.register_script(_WRITE)
        self._last: tuple[bytes, Shared | None] = (b"", None)

    async def exchange(self, changes: Changes) -> Shared:
        """Adds one scheduler's changes, each of them once however often they come; what all know with them.

        Raises Unavailable, also where others write all the time.
        """
        for _ in range(WRITES_MAX):
            async with self._store.reaching():
                found, seconds, microseconds = await self._read(keys=[self._key], args=[self._ttl_s])
            shared = self._decoded(found or b"")
            result = merged(shared, changes, int(seconds) + int(microseconds) / 1e6)
            if result is shared:
                return result
            encoded = encode(result)
            async with self._store.reaching():
                digest = hashlib.sha1(found or b"").hexdigest()
                written = await self._write(keys=[self._key], args=[digest, encoded, self._ttl_s])
            if written:
                self._last = (encoded, result)
                return result
        raise Unavailable(
            "KNOWLEDGE_BUSY", f"others wrote {WRITES_MAX} times meanwhile; try again later", retry_delay_ms=1000
        )

    def _decoded(self, found: bytes) -> Shared | None:
        """What was found, decoded unless it is what was seen last."""
        if found != self._last[0]:
            self._last = (found, decode(found) if found else None)
        return self._last[1]


class KnowledgeExchange:
    """Keeps one scheduler's knowledge and everybody's together."""

    def __init__(self, shared: SharedKnowledge, knowledge: Knowledge, pause_s: float = PAUSE_S) -> None:
        self._shared = shared
        self._knowledge = knowledge
        self._pause_s = pause_s
        self._one_at_a_time = asyncio.Lock()
        self._away = False

    async def run(self) -> None:
        """Exchanges at once and every `pause_s` seconds, for ever."""
        while True:
            await self.exchange()
            await asyncio.sleep(self._pause_s)

    async def finish(self) -> None:
        """Exchanges once more, within `FINISH_S` or not at all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.exchange()

    async def exchange(self) -> None:
        """Exchanges once. Where that fails, nothing is lost but time, and it is said once until it works again."""
        async with self._one_at_a_time:
            changes = self._knowledge.take_changes(asyncio.get_running_loop().time())
            try:
                self._knowledge.absorb(await self._shared.exchange(changes))
                self._away = False
            except (Unavailable, RedisError) as error:
                if not self._away:
                    log.warning("knowledge is not shared for now, each scheduler uses its own", reason=str(error))
                self._away = True


def encode(shared: Shared) -> bytes:
    """As JSON, vectors as base64 of little-endian float32."""
    names = sorted({name for cluster in shared.clusters.values() for name in cluster.tallies})
    index = {name: position for position, name in enumerate(names)}
    clusters = [
        [
            name,
            round(cluster.prompt_count, DIGITS),
            base64.b64encode(cluster.total.astype("<f4").tobytes()).decode(),
            [
                [index[key], round(tally.hits, DIGITS), round(tally.tries, DIGITS)]
                for key, tally in cluster.tallies.items()
            ],
        ]
        for name, cluster in shared.clusters.items()
    ]
    content = {
        "epoch": shared.epoch,
        "time": shared.time,
        "taken": shared.taken,
        "names": names,
        "clusters": clusters,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def decode(encoded: bytes) -> Shared | None:
    """What `encode` wrote; None, and an error in the log, where it is anything else."""
    try:
        content = json.loads(encoded)
        names = [str(name) for name in content["names"]]
        clusters = {str(name): _cluster(names, *rest) for name, *rest in content["clusters"]}
        taken = {str(writer): int(sequence) for writer, sequence in content["taken"].items()}
        return Shared(str(content["epoch"]), _amount(content["time"]), clusters, taken)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        log.error("the shared knowledge cannot be read and is begun anew", reason=str(error))
        return None


def _cluster(names: list[str], prompt_count: Any, total: Any, tallies: Any) -> Cluster:
    vector = np.frombuffer(base64.b64decode(total), dtype="<f4").astype(np.float64)
    if vector.shape != (DIMENSION,) or not np.isfinite(vector).all() or not prompt_count > 0:
        raise ValueError("a cluster is none")
    return Cluster(vector, _amount(prompt_count), {names[key]: _tally(hits, tries) for key, hits, tries in tallies})


def _tally(hits: Any, tries: Any) -> Tally:
    return Tally(min(_amount(hits), _amount(tries)), _amount(tries))


def _amount(value: Any) -> float:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{value} is no amount")
    return float(value)
