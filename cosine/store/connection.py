"""One connection pool to one mesh's keys: URL to client, time limits, retries, and one clear error where Redis is away.

Away is what is not there, what does not answer in time and what answers that it will not serve, whatever its reason.

All keys of a mesh share one prefix with a {hash tag}, so that scripts over several of them run in a cluster, and
meshes with different names share one Redis. What the keys hold is for the other modules of this package.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cosine.core.errors import BadRequest, Unavailable
from cosine.text.masking import mask

CONNECTIONS_MAX = 32
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
TRIES_AGAIN = 3
LIMIT_S = 5.0  # of one operation, with all that is tried again in it
INSIST_S = 0.5  # after which it is ended a second time
AWAY = (RedisConnectionError, RedisTimeoutError, ResponseError, OSError)

Arguments = list[bytes | bytearray | memoryview | str | int | float]  # of a script


class Store:
    """A mesh's part of a Redis. `client` is for short commands; `reader()` makes a connection that may block."""

    def __init__(self, url: str, mesh: str = "mesh", client_name: str = "cosine") -> None:
        self.url = url
        self._prefix = f"cosine:{{{mesh}}}"
        self._client_name = re.sub(r"[^\x21-\x7e]", "-", client_name)
        self._has_served = False
        self.client = self._connect(CONNECTIONS_MAX, ANSWER_TIMEOUT_S)

    def key(self, *parts: str) -> str:
        """The name of a key of this mesh."""
        return ":".join((self._prefix, *parts))

    def reader(self, block_ms: int) -> Redis:
        """A client with one connection of its own, whose answers may take `block_ms`. The caller closes it."""
        return self._connect(1, ANSWER_TIMEOUT_S + block_ms / 1000)

    @asynccontextmanager
    async def reaching(self, blocked_s: float = 0.0) -> AsyncIterator[None]:
        """Turns every way in which Redis can be away into Unavailable, which names it and says what to do.

        Around one operation, which may take `LIMIT_S`, and `blocked_s` more where it waits for news. A cancellation
        that comes while redis-py writes is lost in `asyncio.wait_for` before Python 3.12. The task still counts it, so
        it is raised here; and one that comes from the limit comes a second time.
        """
        limit_s = LIMIT_S + blocked_s
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(limit_s + INSIST_S), asyncio.timeout(limit_s):
                yield
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError
            self._has_served = True
        except AWAY as error:
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError from error
            raise Unavailable(
                "STORE_UNREACHABLE",
                f"Redis at {mask(self.url)} does not serve ({_reason(error)}); {_advice(error)}"
                f"{'; running requests go on' if self._has_served else ''}",
                {"url": mask(self.url)},
                retry_delay_ms=1000,
            ) from error

    async def ping(self) -> None:
        """Raises Unavailable where Redis does not answer."""
        async with self.reaching():
            await self.client.ping()

    async def now_ms(self) -> int:
        """Unix time by Redis's clock, the one that all processes of a mesh go by. Raises Unavailable."""
        async with self.reaching():
            seconds, microseconds = await self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def close(self) -> None:
        """Closes the pool."""
        await self.client.aclose()

    def _connect(self, connections_max: int, answer_timeout_s: float) -> Redis:
        options: dict[str, Any] = {
            "max_connections": connections_max,
            "timeout": ANSWER_TIMEOUT_S,
            "client_name": self._client_name,
            "protocol": 2,  # the shape of stream replies differs in 3
            "health_check_interval": 15,
            "socket_timeout": answer_timeout_s,
            "retry": Retry(ExponentialBackoff(cap=0.5, base=0.02), TRIES_AGAIN),
            "retry_on_error": [RedisConnectionError, RedisTimeoutError],
        }
        if not self.url.startswith("unix://"):
            options["socket_connect_timeout"] = CONNECT_TIMEOUT_S
        try:
            pool = BlockingConnectionPool.from_url(self.url, **options)
        except (ValueError, RedisError) as error:
            raise BadRequest(
                "STORE_URL",  # without the error's own words: they may repeat a part of the password
                f"{mask(self.url)!r} is not a Redis URL; use redis://HOST:PORT or unix:///PATH, and write "
                "%2F for / and %40 for @ in a password",
            ) from error
        return Redis.from_pool(pool)


def _reason(error: Exception) -> str:
    """Redis's own words, without the command of a pipeline that redis-py puts before them: it may hold a prompt."""
    return str(error).rpartition(" of pipeline caused error: ")[2] or type(error).__name__


def _advice(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "check user and password in the URL and that the server runs"
    if isinstance(error, ResponseError):
        return "put right what it says, or check redis_url"
    return "check redis_url and that the server runs"
