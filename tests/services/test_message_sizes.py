"""How large a message may be is one bound for a process: for who calls it, and for whom it calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import ModuleType
from typing import Any

import grpc.aio
import pytest
from pydantic_settings import CliApp

from cosine.peer.links import Links
from cosine.rpc.hello import Identity
from cosine.rpc.server import server_options
from cosine.rpc.settings import ServiceSettings
from cosine.rpc.streams import Outbox, PeerLink, accept
from cosine.store.connection import Store
from cosine.v1 import drafter_pb2 as pb
from cosine.v1.drafter_pb2_grpc import (
    DrafterServiceServicer,
    DrafterServiceStub,
    add_DrafterServiceServicer_to_server,
)
from services.fusion import __main__ as fusion
from services.gateway import __main__ as gateway
from services.gateway import relay
from services.gateway.settings import GatewaySettings
from services.scheduler import __main__ as scheduler

DEADLINE_S = 20.0
MIB = 1 << 20
BOUND = 4096
URL = "--redis-url=redis://127.0.0.1:1"


class Drafter(DrafterServiceServicer):
    """Takes messages of up to 32 MiB and tells how many bytes came."""

    def __init__(self) -> None:
        self.size: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def Draft(self, _requests: object, context: Any) -> None:
        with suppress(asyncio.CancelledError):
            us = Identity("drafter", "d")
            await accept(context, us, "fusion", pb.DraftResponse, self._opened)

    def _opened(self, _peer: Identity, _outbox: Outbox) -> Drafter:
        return self

    def on_message(self, message: pb.DraftRequest) -> None:
        self.size.set_result(message.ByteSize())

    def on_closed(self) -> None: ...


class Caller:
    """Sends one message as soon as the link is up; a link that breaks tells why."""

    def __init__(self, message: pb.DraftRequest) -> None:
        self._message = message
        self.down: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_up(self, link: PeerLink, _peer: Identity) -> None:
        link.send(self._message)

    def on_message(self, _link: PeerLink, _message: Any) -> None: ...

    def on_down(self, _link: PeerLink, reason: str) -> None:
        if not self.down.done():
            self.down.set_result(reason)


def _draft(channel: grpc.aio.Channel) -> Any:
    return DrafterServiceStub(channel).Draft


async def sent(size: int, bound: int) -> int | str:
    """The size of a message as it arrives over a link with this bound, or why the link broke."""
    message = pb.DraftRequest(step=pb.DraftStep(traceparent="x" * size))
    drafter, caller = Drafter(), Caller(message)
    server = grpc.aio.server(options=server_options(32 * MIB))
    add_DrafterServiceServicer_to_server(drafter, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    us = Identity("fusion", "f")
    link = PeerLink("d", address, _draft, pb.DraftRequest, us, "drafter", caller, bound)
    running = asyncio.create_task(link.run())
    try:
        ends = (drafter.size, caller.down)
        await asyncio.wait(ends, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        return next(end.result() for end in ends if end.done())
    finally:
        running.cancel()
        await asyncio.wait((running,))
        await server.stop(0)


async def test_a_link_carries_messages_up_to_its_own_bound() -> None:
    assert await sent(17 * MIB, bound=32 * MIB) in range(17 * MIB, 18 * MIB)
    assert isinstance(await sent(BOUND, bound=BOUND), str), "and no larger ones; in which words is gRPC's affair"


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Role and bound of all links that a process makes."""
    made: list[tuple[str, int]] = []

    def make(role: str, *parts: Any, message_bytes_max: int = 0, **more: Any) -> Links:
        made.append((role, message_bytes_max))
        return Links(role, *parts, **more)

    for module in (fusion, scheduler, relay):
        monkeypatch.setattr(module, "Links", make)
    return made


async def assembled(module: ModuleType, kind: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a process together as its program does, up to where it would serve."""

    async def nothing(*_: object) -> None: ...

    told = CliApp.run(kind, [URL, f"--message-bytes-max={BOUND}"])
    monkeypatch.setattr(module, "read", lambda _: told)
    monkeypatch.setattr(module, "setup_logging", lambda *_, **__: None)
    monkeypatch.setattr(module, "serve", nothing)
    monkeypatch.setattr(Store, "ping", nothing)
    await module.main()


async def test_fusion_calls_drafters_with_the_bound_of_its_flag(
    monkeypatch: pytest.MonkeyPatch, bounds: list[tuple[str, int]]
) -> None:
    await assembled(fusion, fusion.FusionSettings, monkeypatch)
    assert bounds == [("drafter", BOUND)]


async def test_a_scheduler_calls_verifiers_and_fusion_with_the_bound_of_its_flag(
    monkeypatch: pytest.MonkeyPatch, bounds: list[tuple[str, int]]
) -> None:
    await assembled(scheduler, scheduler.SchedulerSettings, monkeypatch)
    assert bounds == [("verifier", BOUND), ("fusion", BOUND)]


async def test_a_gateway_calls_schedulers_with_the_bound_of_its_flag(bounds: list[tuple[str, int]]) -> None:
    settings = CliApp.run(GatewaySettings, ["--model=toy", URL, f"--message-bytes-max={BOUND}"])
    gateway.assemble(settings, "g", Store("redis://127.0.0.1:1", "mesh", "g"))
    assert bounds == [("scheduler", BOUND)]
