"""The bundled server: reachable, private, and gone when its starter is gone."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cosine.core.errors import Unavailable
from cosine.store import embedded
from cosine.store.connection import Store
from cosine.store.embedded import PORTS, EmbeddedServer, free_port

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


def test_a_server_whose_port_another_has_does_not_take_that_one_for_itself() -> None:
    with EmbeddedServer(0) as other, pytest.raises(Unavailable, match="in use"):
        EmbeddedServer(int(other.url.rpartition(":")[2]))


def test_ports_differ_and_are_none_that_the_system_gives_away() -> None:
    found = [free_port() for _ in range(50)]
    assert len(set(found)) == 50
    assert set(found) <= set(PORTS)


def test_a_port_that_somebody_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = free_port()
        candidates = iter([taken.getsockname()[1], port])
        monkeypatch.setattr(embedded, "_candidates", lambda: candidates)
        assert free_port() == port
        with pytest.raises(Unavailable, match="are taken"):
            free_port()
