"""A real server per session, the bundled one and, where it is installed, redis-server; a mesh of its own per test."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer

MESHES = itertools.count()


@pytest.fixture(scope="session", params=["bundled", "redis-server"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    binary = None if request.param == "bundled" else shutil.which("redis-server")
    if request.param != "bundled" and binary is None:
        pytest.skip("no redis-server on PATH")
    with EmbeddedServer(0, binary) as running:
        yield running


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[Store]:
    opened = Store(server.url, f"test-{next(MESHES)}")
    yield opened
    await opened.close()
