"""Peers that do not fit, and peers that are more than one: left out by name, or shared without harm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from generations import Asking, eventually
from plain import DRAFTERS, TARGET
from processes import service

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient
from cosine.rpc.hello import Identity
from cosine.rpc.streams import Outbox, accept
from cosine.store.connection import Store
from cosine.store.registry import PeerRecord, Registry
from cosine.v1 import drafter_pb2 as pb
from cosine.v1.drafter_pb2_grpc import DrafterServiceServicer, add_DrafterServiceServicer_to_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOREIGN = "f" * 64


class Stranger(DrafterServiceServicer):
    """A drafter whose tokens mean something else; it counts what it is asked."""

    def __init__(self) -> None:
        self.identity = Identity("drafter", "stranger", model_id="foreign", tokenizer_fingerprint=FOREIGN, vocab_size=9)
        self.attached = asyncio.Event()
        self.step_count = 0

    async def Draft(self, request_iterator: Any, context: Any) -> None:
        await accept(context, self.identity, "fusion", pb.DraftResponse, self._open)

    def _open(self, _peer: Identity, _outbox: Outbox) -> Stranger:
        self.attached.set()
        return self

    def on_message(self, message: pb.DraftRequest) -> None:
        self.step_count += message.HasField("step")

    def on_closed(self) -> None:
        pass


@asynccontextmanager
async def joined(stranger: Stranger, redis_url: str) -> AsyncIterator[None]:
    """The stranger serves and is in the registry."""
    server = grpc.aio.server()
    add_DrafterServiceServicer_to_server(stranger, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    store = Store(redis_url)
    identity = stranger.identity
    record = PeerRecord("drafter", identity.peer_id, address, identity.incarnation, tokenizer_fingerprint=FOREIGN)
    try:
        await Registry(store).register(record)
        yield
        await Registry(store).leave(record)
    finally:
        await server.stop(0)
        await store.close()


async def test_a_drafter_with_another_tokenizer_is_left_out_and_both_fingerprints_are_named(
    mesh: Mesh, ask: Asking
) -> None:
    stranger = Stranger()
    ours = (await ask.client.model()).tokenizer_fingerprint
    log = Path(mesh.peer("scheduler").log_path)

    def refusals() -> list[str]:
        return [line for line in log.read_text().splitlines() if "drafter left out" in line and "stranger" in line]

    async with joined(stranger, mesh.redis_url):
        await stranger.attached.wait()
        await eventually(lambda: bool(refusals()), "the scheduler says that it leaves the stranger out")
        assert FOREIGN[:16] in refusals()[0]
        assert ours[:16] in refusals()[0]
        assert "trained with the target's tokenizer" in refusals()[0]
        completion = await ask.one("Strangers. ", strategy="specinfer", max_new_tokens=40, ignore_eos=True)
        assert set(completion.speculation.drafters) == set(DRAFTERS)
        assert stranger.step_count == 0
    await ask.one("Without. ", strategy="specinfer", max_new_tokens=20)


async def test_schedulers_that_share_workers_do_not_overfill_them() -> None:
    spec = MeshSpec(target=TARGET, drafters={"d0": DRAFTERS["d0"]}, gateway="127.0.0.1:0", sessions=4, pace="2")
    async with (
        Mesh(spec) as mesh,
        service("scheduler", "--peer-id=scheduler-2", "--live-max=4", redis_url=mesh.redis_url),
        AsyncClient(mesh.gateway_address) as client,
    ):

        async def both_work() -> bool:
            options = {"max_new_tokens": 60, "ignore_eos": True, "temperature": 1.0}
            asked = [(f"Crowd {index}. ", {**options, "seed": index}) for index in range(16)]
            waiting = asyncio.create_task(Asking(client).all(*asked))
            loads = [0]
            while not waiting.done():
                loads = [peer.load for peer in await client.peers() if peer.role == "scheduler"]
                if len(loads) == 2 and min(loads) > 0:
                    break
                await asyncio.wait([waiting], timeout=0.1)
            await waiting
            return len(loads) == 2 and min(loads) > 0

        await eventually(both_work, "two schedulers have work at once")
        assert [peer.peer_id for peer in mesh.peers if peer.restart_count] == []
