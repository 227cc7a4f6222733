"""Deadlines hold wherever a request waits: for the mesh, and for a client that takes nothing more."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from gateway_stage import PATIENCE_S, Mesh, failure, running

from cosine.core.errors import BadRequest, Expired, Unavailable
from cosine.rpc.errors import Borders, from_rpc_error, to_failure
from cosine.rpc.server import server_options
from cosine.store.admission import AdmissionFigures, AdmissionQueue
from cosine.store.connection import Store
from cosine.store.records import FINISHED_TTL_S, keys_of
from cosine.v1 import gateway_pb2 as pb
from cosine.v1.gateway_pb2_grpc import (
    GatewayServiceServicer,
    GatewayServiceStub,
    add_GatewayServiceServicer_to_server,
)
from services.gateway import __main__ as gateway
from services.gateway import delivery, metrics
from services.gateway.delivery import Context, Deliveries

TOO_MUCH = "x" * 900_000  # more than gRPC reads ahead of a client that does not read
NOT_AHEAD = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]


class Writer(GatewayServiceServicer):
    """Says a word in time, and then too much, too late."""

    def __init__(self) -> None:
        self.deliveries = Deliveries()
        self.left = asyncio.Event()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> Any:
        now = asyncio.get_running_loop().time()
        try:
            with self.deliveries.handing_over(context, now + PATIENCE_S):
                yield pb.GenerateResponse(started={})
            with self.deliveries.handing_over(context, now):
                yield pb.GenerateResponse(chunk={"text": TOO_MUCH})
        finally:
            self.left.set()


async def test_a_call_ends_on_time_though_its_client_does_not_read_and_says_so_when_it_does() -> None:
    writer, server = Writer(), grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()])
    add_GatewayServiceServicer_to_server(writer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(f"127.0.0.1:{port}", NOT_AHEAD) as channel:
        call = GatewayServiceStub(channel).Generate(pb.GenerateRequest())
        assert (await call.read()).HasField("started")
        await writer.left.wait()
        assert (await call.read()).chunk.text == TOO_MUCH
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await call.read()
    assert from_rpc_error(told.value).reason == "DEADLINE_EXCEEDED"
    await server.stop(0)


async def test_a_client_that_never_reads_holds_neither_seat_nor_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, hand_over = asyncio.Event(), Deliveries.handing_over

    def hand_over_in_time(self: Deliveries, context: Context, deadline: float) -> AbstractContextManager[None]:
        return hand_over(self, context, asyncio.get_running_loop().time() if over.is_set() else deadline)

    monkeypatch.setattr(Deliveries, "handing_over", hand_over_in_time)
    async with running(store, requests_max=1) as mesh:
        call = mesh.generate(timeout=None)
        request = await mesh.scheduler.take()
        assert (await call.read()).HasField("started")
        over.set()
        mesh.scheduler.tell(request, b"a", logprobs=[{"top_token_ids": [200] * 400_000}])
        assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)
        await asyncio.wait_for(mesh.service.drain(), PATIENCE_S)
        assert mesh.service.load() == 0
        call.cancel()


async def test_a_gateway_that_stops_does_not_wait_for_a_client_that_does_not_read(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "STILL_S", 0.0)
    call = mesh.generate(timeout=None)
    request = await mesh.scheduler.take()
    assert (await call.read()).HasField("started")
    draining = asyncio.create_task(mesh.service.drain())
    mesh.scheduler.tell(request, b"a", logprobs=[{"top_token_ids": [200] * 400_000}])
    await asyncio.wait_for(draining, PATIENCE_S)
    error = await failure(call)
    assert (error.reason, type(error)) == ("DRAINING", Unavailable)


async def test_a_request_that_waits_for_a_scheduler_waits_no_longer_than_its_time(store: Store) -> None:
    async with running(store, connect=False, request_timeout_s=0.05, scheduler_wait_s=1000) as mesh:
        error = await failure(mesh.generate(timeout=None))
        assert (error.reason, type(error)) == ("DEADLINE_EXCEEDED", Expired)


class Late:
    """A call whose deadline has passed."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> float:
        return 0.0


async def test_a_request_whose_time_is_over_when_it_comes_is_not_admitted(mesh: Mesh) -> None:
    servicer = mesh.service.servicers[0][1]
    with pytest.raises(Expired):
        await anext(servicer.Generate(pb.GenerateRequest(request_id="r", text="hi"), Late()))
    assert (await AdmissionQueue(mesh.store).figures()).waiting_count == 0


# -- what is left behind


async def keys(mesh: Mesh) -> set[bytes]:
    return {key async for key in mesh.store.client.scan_iter(mesh.store.key("*"))}


async def test_a_request_that_is_refused_at_the_door_leaves_nothing_and_tells_nobody(store: Store) -> None:
    async with running(store, waiting_max=1) as mesh:
        call = mesh.generate()
        await call.read()
        before = await keys(mesh)
        assert (await failure(mesh.generate(request_id="other"))).reason == "ADMISSION_FULL"
        assert await keys(mesh) == before
        call.cancel()
        assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [(BadRequest("SESSION_TOO_LONG", "shorten it"), False), (Unavailable("NO_VERIFIER", "later"), True)],
    ids=["hopeless", "hopeful"],
)
async def test_a_failed_request_is_kept_for_as_long_as_a_resume_could_help(
    mesh: Mesh, error: Any, is_kept: bool
) -> None:
    call = mesh.generate()
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(error))
    await failure(call)
    other = mesh.generate(request_id="other", max_new_tokens=1)
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(BadRequest("SESSION_TOO_LONG", "shorten it")))
    await failure(other)  # what is shortened is shortened in order
    async with asyncio.timeout(PATIENCE_S):
        while max([await mesh.store.client.ttl(key) for key in keys_of(mesh.store, "other")]) > FINISHED_TTL_S:
            pass
    assert [await mesh.store.client.ttl(key) > FINISHED_TTL_S for key in keys_of(mesh.store, "r")] == [is_kept] * 2


# -- what autoscaling reads


class Queue:
    """Figures once, then none."""

    load = 0

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []
        self.told_all = asyncio.Event()

    async def figures(self) -> AdmissionFigures:
        self.told.append((metrics.WAITING._value.get(), metrics.OLDEST_WAIT_SECONDS._value.get()))
        if len(self.told) == 1:
            return AdmissionFigures(3, 1500)
        if len(self.told) == 3:
            self.told_all.set()
        raise Unavailable("STORE_UNREACHABLE", "gone")


async def test_figures_that_cannot_be_known_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FIGURES_EVERY_S", 0.0)
    queue: Any = Queue()
    watching = asyncio.create_task(gateway.watch_figures(queue, queue))
    await asyncio.wait_for(queue.told_all.wait(), PATIENCE_S)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert queue.told[1] == (3, 1.5)
    assert all(math.isnan(figure) for figure in queue.told[2])
