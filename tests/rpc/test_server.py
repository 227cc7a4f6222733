"""The life of a service process: it serves, says that it drains to whoever asks, drains, and ends; or fails."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from cosine.core.errors import Unavailable
from cosine.rpc.hello import Identity
from cosine.rpc.server import Service, serve
from cosine.rpc.settings import ServiceSettings

DEADLINE_S = 20.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAME = "cosine.v1.TestService"


class Registrar:
    """Notes where the service is and that it drains."""

    def __init__(self) -> None:
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.is_draining = False

    async def run(self, address: str, _load: Callable[[], int]) -> None:
        self.address.set_result(address)
        await asyncio.Event().wait()

    async def drain(self) -> None:
        self.is_draining = True


class Process:
    """A service whose drain begins and ends where the test says so, with time to spare or too little of it; `fails` is
    how its work fails, and when."""

    def __init__(self, grace_s: float = DEADLINE_S) -> None:
        self.registrar = Registrar()
        self.began, self.may_end = asyncio.Event(), asyncio.Event()
        self.fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settings = ServiceSettings(listen="127.0.0.1:0", grace_s=grace_s, _cli_parse_args=False)  # type: ignore[call-arg]  # an argument of pydantic-settings
        service = Service(
            Identity("drafter", "d"),
            [(lambda *_: None, None, NAME)],
            background=[self._work],
            drain=self._drain,
            registrar=self.registrar,
        )
        self.task = asyncio.create_task(serve(settings, service))

    async def _work(self) -> None:
        await self.fails

    async def _drain(self) -> None:
        self.began.set()
        await self.may_end.wait()

    async def health(self) -> list[int]:
        """What the process and its service say of themselves."""
        async with grpc.aio.insecure_channel(await self.registrar.address) as channel:
            check = HealthStub(channel).Check
            return [(await check(health_pb2.HealthCheckRequest(service=name))).status for name in ("", NAME)]

    async def ended(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.task


@pytest.fixture(autouse=True)
def _unfrozen() -> Iterator[None]:
    """A service that has started takes what there is out of the collector's reach; tests go on."""
    yield
    gc.unfreeze()


async def test_a_service_told_to_stop_says_so_while_it_finishes_what_it_has() -> None:
    process = Process()
    async with asyncio.timeout(DEADLINE_S):
        assert await process.health() == [SERVING, SERVING]
        os.kill(os.getpid(), signal.SIGTERM)
        await process.began.wait()
        assert await process.health() == [NOT_SERVING, NOT_SERVING]
    assert process.registrar.is_draining
    assert not process.task.done()
    process.may_end.set()
    await process.ended()


async def test_a_service_that_cannot_finish_in_time_ends_all_the_same() -> None:
    process = Process(grace_s=0.01)
    async with asyncio.timeout(DEADLINE_S):
        await process.registrar.address
        os.kill(os.getpid(), signal.SIGTERM)
        await process.began.wait()
    await process.ended()


async def test_a_service_whose_work_fails_says_that_it_serves_no_more_and_ends() -> None:
    process = Process()
    async with asyncio.timeout(DEADLINE_S), grpc.aio.insecure_channel(await process.registrar.address) as channel:
        told = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await told.read()).status == SERVING
        process.fails.set_exception(Unavailable("ENGINE_HANGS", "it hangs"))
        assert (await told.read()).status == NOT_SERVING
    with pytest.raises(Unavailable):
        await process.ended()
