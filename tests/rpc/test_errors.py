"""Errors keep kind, reason, advice and details across the wire; what nobody foresaw leaves only an id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.status_pb2 import Status

from cosine.core.errors import BadRequest, Full, MeshError, Unavailable
from cosine.rpc.errors import CODES, Borders, code_of, from_failure, from_rpc_error, from_status, to_failure, to_status
from cosine.v1 import gateway_pb2, gateway_pb2_grpc

KINDS = [*CODES, MeshError]


def same(left: MeshError, right: MeshError) -> bool:
    return type(left) is type(right) and vars(left) == vars(right)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_through_a_status(kind: type[MeshError]) -> None:
    error = kind("SOME_REASON", "what to do", {"field": "seed"}, 250)
    assert same(from_status(to_status(error)), error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_through_a_failure_message(kind: type[MeshError]) -> None:
    error = kind("SOME_REASON", "what to do", {"field": "seed"}, 250)
    assert same(from_failure(to_failure(error)), error)


def test_every_branch_of_the_tree_has_its_own_code() -> None:
    assert set(CODES) == set(MeshError.__subclasses__())
    assert len(set(CODES.values())) == len(CODES)


def test_a_status_without_error_info_is_named_after_its_code() -> None:
    error = from_status(Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="gone"))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("UNAVAILABLE", "gone")


def test_an_unknown_code_is_an_internal_error() -> None:
    assert code_of(from_status(Status(code=99, message="?"))) is grpc.StatusCode.INTERNAL


def test_long_messages_and_details_are_cut_to_what_trailers_hold() -> None:
    error = BadRequest("LONG", "x" * 100_000, {f"key{i}": "y" * 10_000 for i in range(100)})
    assert to_status(error).ByteSize() < 4096


class Failing(gateway_pb2_grpc.GatewayServiceServicer):
    """Fails as its `error` says, in unary calls at once, in streams after one message."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def GetModel(self, request: Any, context: Any) -> gateway_pb2.GetModelResponse:
        raise self.error

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[gateway_pb2.GenerateResponse]:
        yield gateway_pb2.GenerateResponse(started=gateway_pb2.Started(request_id="r"))
        raise self.error

    async def ListPeers(self, request: Any, context: Any) -> gateway_pb2.ListPeersResponse:
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return gateway_pb2.ListPeersResponse()


class Mesh:
    """A server with the border, and a stub that calls it."""

    def __init__(self, error: BaseException) -> None:
        self.servicer = Failing(error)

    async def __aenter__(self) -> Any:
        self.server = grpc.aio.server(interceptors=[Borders()])
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(self.servicer, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return gateway_pb2_grpc.GatewayServiceStub(self.channel)

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close(None)
        await self.server.stop(None)


async def test_a_mesh_error_in_a_unary_call_arrives_whole() -> None:
    error = Full("ADMISSION_FULL", "try again", {"waiting": "7"}, 500)
    async with Mesh(error) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(gateway_pb2.GetModelRequest(), timeout=10)
    assert same(from_rpc_error(caught.value), error)


async def test_a_mesh_error_in_a_stream_arrives_after_what_was_sent() -> None:
    error = Unavailable("SCHEDULER_LOST", "käse — again")
    async with Mesh(error) as stub:
        call = stub.Generate(gateway_pb2.GenerateRequest(), timeout=10)
        assert (await call.read()).started.request_id == "r"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert same(from_rpc_error(caught.value), error)


async def test_an_error_inside_a_task_group_is_the_error() -> None:
    error = BadRequest("EMPTY_PROMPT", "send a prompt")
    async with Mesh(ExceptionGroup("unhandled", [ExceptionGroup("inner", [error])])) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(gateway_pb2.GetModelRequest(), timeout=10)
    assert same(from_rpc_error(caught.value), error)


async def test_an_unforeseen_error_leaves_an_id_and_logs_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "cosine.rpc.errors"):
        async with Mesh(ValueError("secret path /a/b")) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetModel(gateway_pb2.GetModelRequest(), timeout=10)
    error = from_rpc_error(caught.value)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.message
    assert error.details["error_id"] in caplog.text
    assert "secret path" in caplog.text


async def test_cancellation_passes_the_border() -> None:
    mesh = Mesh(ValueError())
    async with mesh as stub:
        call = stub.ListPeers(gateway_pb2.ListPeersRequest(), timeout=10)
        async with asyncio.timeout(10):
            await mesh.servicer.running.wait()
            call.cancel()
            await mesh.servicer.cancelled.wait()


@pytest.mark.parametrize("raw", [b"\x12\x02\xff\xfe", b"\xff\xff\xff"], ids=["bad UTF-8", "no message"])
async def test_bytes_that_are_no_request_are_the_callers_fault(raw: bytes) -> None:
    mesh = Mesh(ValueError("not reached"))
    async with mesh:
        call: Any = mesh.channel.unary_stream("/cosine.v1.GatewayService/Generate")(raw, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc_error(caught.value)
    assert error.reason == "MALFORMED_MESSAGE"
    assert "<class" not in error.message
