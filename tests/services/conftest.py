"""A store per module, a mesh of its own per test, and a gateway with one scheduler in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from gateway_stage import Mesh, running

from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer

MESHES = itertools.count()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = Store(url, f"gateway-{next(MESHES)}")
    yield opened
    await opened.close()


@pytest.fixture
async def mesh(store: Store) -> AsyncIterator[Mesh]:
    async with running(store) as started:
        yield started
