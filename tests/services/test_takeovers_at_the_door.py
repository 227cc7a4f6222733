"""Calls that are taken over, and gateways that drain, while a request is on its way into the mesh."""

from __future__ import annotations

import asyncio

import pytest
from gateway_stage import LENGTH, PATIENCE_S, Mesh, failure, rest

from cosine.core.errors import Cancelled
from cosine.store.admission import AdmissionQueue
from cosine.store.records import RequestRecords
from cosine.v1 import gateway_pb2 as pb
from services.gateway import service
from services.gateway.decoding import decode
from services.gateway.running import Running

TAKEN_OVER = Cancelled("TAKEN_OVER", "the request was resumed on another call")


class Pause:
    """Holds the first who comes until told to go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


async def test_a_call_taken_over_while_it_is_admitted_leaves_the_other_alone(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, count = Pause(), RequestRecords.next_attempt

    async def count_slowly(records: RequestRecords, request_id: str) -> int:
        await pause()
        return await count(records, request_id)

    monkeypatch.setattr(RequestRecords, "next_attempt", count_slowly)
    first = asyncio.ensure_future(failure(mesh.generate()))
    async with asyncio.timeout(PATIENCE_S):
        await pause.reached.wait()
        second = mesh.generate(resume=pb.Resume(), max_new_tokens=1)
        request = await mesh.scheduler.take()
        pause.go_on.set()
        assert (await first).reason == "TAKEN_OVER"
    assert (await AdmissionQueue(mesh.store).figures()).waiting_count == 0
    mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
    assert (await rest(second))[0] == "a"


def test_a_request_that_was_taken_over_is_not_lost_as_well() -> None:
    running = Running("r", (), 1)
    running.start(1)
    running.fail(TAKEN_OVER)
    running.on_lost("its scheduler went away")
    with pytest.raises(Cancelled):
        running.take()


def test_a_request_whose_scheduler_was_lost_can_start_again() -> None:
    running = Running("r", (), 1)
    running.start(1)
    running.on_lost("its scheduler went away")
    running.start(2)
    assert running.take().token_ids == []


async def test_a_draining_gateway_finishes_what_it_is_still_reading(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause()

    async def read_slowly(message: pb.GenerateRequest, *more: object) -> object:
        await pause()
        return await decode(message, *more)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(service, "decode", read_slowly)
    call = mesh.generate(max_new_tokens=1)
    async with asyncio.timeout(PATIENCE_S):
        await pause.reached.wait()
        draining = asyncio.ensure_future(mesh.service.drain())
        assert (await failure(mesh.generate(request_id="late"))).reason == "DRAINING"
        assert not draining.done()
        pause.go_on.set()
        request = await mesh.scheduler.take()
        assert not draining.done()
        mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
        assert (await rest(call))[0] == "a"
        await draining
