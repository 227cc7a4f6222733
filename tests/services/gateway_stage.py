"""A real gateway between real gRPC clients, a real store and a scheduler that does what each test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from cosine.core.errors import MeshError
from cosine.rpc.errors import Borders, from_rpc_error
from cosine.rpc.hello import Bounds, Identity
from cosine.rpc.server import server_options
from cosine.rpc.streams import Outbox, accept
from cosine.store.admission import AdmissionBounds, AdmissionReader, Admitted
from cosine.store.connection import Store
from cosine.store.registry import PeerRecord, Registry
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import scheduler_pb2, types_pb2
from cosine.v1.gateway_pb2_grpc import GatewayServiceStub
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from services.gateway.__main__ import assemble
from services.gateway.settings import GatewaySettings

PATIENCE_S = 20.0


class Scheduler(SchedulerServiceServicer):
    """Attaches gateways and takes requests only when asked to."""

    def __init__(self, store: Store, name: str) -> None:
        self.identity = Identity("scheduler", name, bounds=Bounds())
        self.reader = AdmissionReader(store, name, AdmissionBounds(claim_idle_ms=600_000))
        self.outboxes: dict[str, Outbox] = {}
        self.attached = asyncio.Event()
        self.cancelled: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def start(self) -> PeerRecord:
        self.server = grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()])
        add_SchedulerServiceServicer_to_server(self, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return PeerRecord("scheduler", self.identity.peer_id, f"127.0.0.1:{port}", self.identity.incarnation)

    async def stop(self) -> None:
        await self.server.stop(0)
        await self.reader.close()

    async def Attach(self, request_iterator: Any, context: Any) -> None:
        await accept(context, self.identity, "gateway", scheduler_pb2.AttachResponse, self._open)

    def _open(self, peer: Identity, outbox: Outbox) -> _Stream:
        self.outboxes[peer.peer_id] = outbox
        self.attached.set()
        return _Stream(self)

    async def take(self) -> scheduler_pb2.AdmittedRequest:
        """The next request off the stream; the gateway is told that it is taken, then it is acknowledged."""
        entry = await self.read()
        self.tell(entry.request)
        await self.reader.ack([entry])
        return entry.request

    async def read(self) -> Admitted:
        async with asyncio.timeout(PATIENCE_S):
            while not (batch := await self.reader.read(1, 1000)).admitted:
                pass
        return batch.admitted[0]

    def tell(
        self, request: scheduler_pb2.AdmittedRequest, tokens: bytes = b"", offset: int | None = None, **end: Any
    ) -> None:
        """Progress; `offset` defaults to where this attempt began."""
        began = len(request.token_ids) - request.prompt_length
        progress = scheduler_pb2.RequestProgress(
            request_id=request.request_id,
            attempt=request.attempt,
            offset=began if offset is None else offset,
            token_ids=tokens,
            **end,
        )
        self.outboxes[request.gateway_id].send(scheduler_pb2.AttachResponse(progress=progress))


class _Stream:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def on_message(self, message: scheduler_pb2.AttachRequest) -> None:
        self._scheduler.cancelled.put_nowait((message.cancel.request_id, message.cancel.attempt))

    def on_closed(self) -> None:
        pass


class Mesh:
    """One gateway, one scheduler (more on demand), one store."""

    stub: Any

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self.store = store
        self.registry = Registry(store)
        self.scheduler = Scheduler(store, "scheduler-0")
        self.service = assemble(settings, "gateway-0", store)

    async def add_scheduler(self, name: str) -> Scheduler:
        scheduler = Scheduler(self.store, name)
        await self.registry.register(await scheduler.start())
        await scheduler.attached.wait()
        return scheduler

    def generate(self, **fields: Any) -> Any:
        """A call, on request "r" with prompt "hi" unless told otherwise."""
        timeout = fields.pop("timeout", PATIENCE_S)
        fields = {"request_id": "r", "text": "hi", **fields}
        return self.stub.Generate(pb.GenerateRequest(**fields), timeout=timeout)


@asynccontextmanager
async def running(store: Store, connect: bool = True, **settings: Any) -> AsyncIterator[Mesh]:
    defaults: dict[str, Any] = {
        "model": "toy",
        "redis_url": store.url,
        "mesh": "unused",
        "scheduler_wait_s": PATIENCE_S,
    }
    mesh = Mesh(store, GatewaySettings(**{**defaults, **settings}))
    server = grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()])
    for add, servicer, _ in mesh.service.servicers:
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tasks = [asyncio.ensure_future(start()) for start in mesh.service.background]
    record = await mesh.scheduler.start()
    if connect:
        await mesh.registry.register(record)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            mesh.stub = GatewayServiceStub(channel)
            yield mesh
    finally:
        await server.stop(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await mesh.scheduler.stop()


async def rest(call: Any) -> tuple[str, bytes, pb.Finished | None]:
    """What else a call brings: text, tokens, the end."""
    text, tokens, finished = "", b"", None
    while response := await call.read():  # the end is falsy
        text += response.chunk.text
        tokens += bytes(response.chunk.token_ids)
        if response.HasField("finished"):
            finished = response.finished
    return text, tokens, finished


async def failure(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest(call)
    return from_rpc_error(caught.value)


STOP_TOKEN = types_pb2.FINISH_REASON_STOP_TOKEN
STOP_STRING = types_pb2.FINISH_REASON_STOP_STRING
LENGTH = types_pb2.FINISH_REASON_LENGTH
