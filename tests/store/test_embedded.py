"""The bundled server: reachable, private, and gone when its starter is gone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from cosine.core.errors import Unavailable
from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer

STARTER = """
import sys
from cosine.store.embedded import EmbeddedServer
print(EmbeddedServer().url, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("port", [None, 0])
async def test_the_server_serves_until_closed(port: int | None) -> None:
    with EmbeddedServer(port) as server:
        store = Store(server.url)
        await store.ping()
    with pytest.raises(Unavailable):
        await store.ping()
    await store.close()


def test_a_socket_server_leaves_nothing_behind() -> None:
    with EmbeddedServer() as server:
        folder = Path(server.url.removeprefix("unix://")).parent
        assert folder.is_dir()
    assert not folder.exists()


def test_the_server_ends_with_a_starter_that_was_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    assert starter.stdin is not None
    path = starter.stdout.readline().decode().strip().removeprefix("unix://")
    server_id = int(_info(path)["process_id"])
    watch = os.pidfd_open(server_id)
    starter.kill()
    starter.wait()
    starter.stdin.close()
    starter.stdout.close()
    ended, _, _ = select.select([watch], [], [], 10)
    os.close(watch)
    Path(path).parent.joinpath("server.log").unlink(missing_ok=True)
    assert ended


def _info(path: str) -> dict[str, str]:
    import redis

    with redis.Redis(unix_socket_path=path) as client:
        return {key: str(value) for key, value in client.info("server").items()}


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(Unavailable, match="redis_url"):
        EmbeddedServer(0, binary="/bin/false")
