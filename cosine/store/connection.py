"""One connection pool to one mesh's keys: URL to client, time limits, retries, and one clear error where Redis is away.

All keys of a mesh share one prefix with a {hash tag}, so that scripts over several of them run in a cluster, and
meshes with different names share one Redis. What the keys hold is for the other modules of this package.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cosine.core.errors import BadRequest, Unavailable
from cosine.text.masking import mask

CONNECTIONS_MAX = 32
CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
TRIES_AGAIN = 3
AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, ClusterDownError, OutOfMemoryError, OSError)


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

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turns every way in which Redis can be away into Unavailable, which names it and says what to do.

        Around awaits only. A cancellation that comes while redis-py writes is lost in `asyncio.wait_for` before
        Python 3.12; the task still counts it, so it is raised here.
        """
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            yield
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError
            self._has_served = True
        except AWAY as error:
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError from error
            hint = "check user and password in the URL" if isinstance(error, AuthenticationError) else "check redis_url"
            raise Unavailable(
                "STORE_UNREACHABLE",
                f"Redis at {mask(self.url)} does not serve ({error or type(error).__name__}); {hint} "
                f"and that the server runs{'; running requests go on' if self._has_served else ''}",
                {"url": mask(self.url)},
                retry_delay_ms=1000,
            ) from error

    async def ping(self) -> None:
        """Raises Unavailable where Redis does not answer."""
        with self.reaching():
            await self.client.ping()

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
