"""One mesh of toys for all tests that leave it as it is; every peer a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from generations import Asking, speculates
from plain import DRAFTERS, TARGET

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh() -> AsyncIterator[Mesh]:
    """Three drafters that agree with the target most of the time, at full speed."""
    async with Mesh(MeshSpec(target=TARGET, drafters=DRAFTERS, gateway="127.0.0.1:0", verifiers=2)) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(mesh: Mesh) -> AsyncIterator[AsyncClient]:
    """A client of the shared mesh."""
    async with AsyncClient(mesh.gateway_address) as opened:
        await speculates(opened, *DRAFTERS)
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ask(client: AsyncClient) -> Asking:
    """Completions that are checked on the way."""
    return Asking(client)
