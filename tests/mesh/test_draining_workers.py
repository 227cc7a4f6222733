"""A process with a model that is told to stop answers what it has, says meanwhile that it drains, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from generations import PATIENCE_S, eventually
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from plain import TARGET
from processes import service

from cosine.rpc import hello
from cosine.rpc.hello import Identity
from cosine.store.embedded import EmbeddedServer
from cosine.v1 import drafter_pb2, types_pb2, verifier_pb2
from cosine.v1.drafter_pb2_grpc import DrafterServiceStub
from cosine.v1.verifier_pb2_grpc import VerifierServiceStub

PASS_MS = 1000  # longer than a server that stops at once waits for its calls
CANCELLED, OK = types_pb2.ITEM_STATUS_CANCELLED, types_pb2.ITEM_STATUS_OK


class Batches:
    """Work for a verifier, and how its answers read."""

    stream = staticmethod(lambda channel: VerifierServiceStub(channel).Verify())
    caller, message = "scheduler", verifier_pb2.VerifyRequest

    @staticmethod
    def work(work_id: int) -> verifier_pb2.VerifyRequest:
        items = [verifier_pb2.VerifyItem(session_id="s", append_token_ids=[1, work_id])]
        return verifier_pb2.VerifyRequest(batch=verifier_pb2.VerifyBatch(batch_id=work_id, items=items))

    @staticmethod
    def read(answer: verifier_pb2.VerifyResponse) -> tuple[int, int]:
        (verdict,) = answer.verdicts.verdicts
        return answer.verdicts.batch_id, verdict.status


class Steps:
    """The same for a drafter."""

    stream = staticmethod(lambda channel: DrafterServiceStub(channel).Draft())
    caller, message = "fusion", drafter_pb2.DraftRequest

    @staticmethod
    def work(work_id: int) -> drafter_pb2.DraftRequest:
        items = [drafter_pb2.DraftItem(session_id="s", append_token_ids=[1, work_id], step_count=1)]
        return drafter_pb2.DraftRequest(step=drafter_pb2.DraftStep(step_id=work_id, items=items))

    @staticmethod
    def read(answer: drafter_pb2.DraftResponse) -> tuple[int, int]:
        (result,) = answer.candidates.results
        return answer.candidates.step_id, result.status


@pytest.fixture
def redis_url() -> Iterator[str]:
    """Where a worker registers."""
    with EmbeddedServer() as server:
        yield server.url


async def within_patience(read: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await read()


@pytest.mark.parametrize(("role", "kind"), [("verifier", Batches), ("drafter", Steps)])
async def test_a_worker_told_to_stop_answers_what_it_has_and_ends(
    redis_url: str, role: str, kind: type[Batches] | type[Steps]
) -> None:
    flags = (f"--model={TARGET}", f"--pace={PASS_MS}")
    async with (
        service(role, *flags, redis_url=redis_url) as (address, pid),
        grpc.aio.insecure_channel(address) as channel,
    ):
        call = kind.stream(channel)
        await call.write(kind.message(hello=hello.to_proto(Identity(kind.caller, "test"))))
        await within_patience(call.read)
        for work_id in (1, 2, 3):
            await call.write(kind.work(work_id))
        await call.write(kind.message(cancel=types_pb2.CancelWork(work_ids=[3])))
        assert kind.read(await within_patience(call.read)) == (3, CANCELLED), "the others are there"
        os.kill(pid, signal.SIGTERM)

        async def drains() -> bool:
            told = await HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            return bool(told.status == health_pb2.HealthCheckResponse.NOT_SERVING)

        await eventually(drains, "it says that it drains")
        assert [kind.read(await within_patience(call.read)) for _ in range(2)] == [(1, OK), (2, OK)]
        with pytest.raises(grpc.aio.AioRpcError):
            await within_patience(call.read)
