"""A gateway at its bounds, and what it counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gateway_stage import LENGTH, PATIENCE_S, Mesh, failure, rest, running

from cosine.core.intake import Request
from cosine.store.connection import Store
from cosine.v1 import gateway_pb2 as pb
from services.gateway import metrics, service
from services.gateway.decoding import decode


async def test_a_full_gateway_refuses_and_says_when_to_come_back(store: Store) -> None:
    async with running(store, requests_max=1, retry_delay_ms=70) as mesh:
        call = mesh.generate()
        await call.read()
        error = await failure(mesh.generate(request_id="other"))
        assert (error.reason, error.retry_delay_ms) == ("GATEWAY_FULL", 70)
        call.cancel()


async def test_a_full_gateway_refuses_before_it_reads_a_prompt(store: Store) -> None:
    async with running(store, requests_max=1, prompt_bytes_max=10) as mesh:
        call = mesh.generate()
        await call.read()
        error = await failure(mesh.generate(request_id="other", text="far too long for this gateway"))
        assert error.reason == "GATEWAY_FULL"
        call.cancel()


async def test_a_request_that_is_still_being_read_has_its_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def read_slowly(message: pb.GenerateRequest, *rest: Any) -> Request:
        reading.set()
        await go_on.wait()
        return await decode(message, *rest)

    monkeypatch.setattr(service, "decode", read_slowly)
    async with running(store, requests_max=1) as mesh:
        first = asyncio.ensure_future(rest(mesh.generate(max_new_tokens=1)))
        await reading.wait()
        assert (await failure(mesh.generate(request_id="other"))).reason == "GATEWAY_FULL"
        go_on.set()
        mesh.scheduler.tell(await mesh.scheduler.take(), b"a", finish_reason=LENGTH)
        assert (await first)[0] == "a"


async def test_a_full_gateway_still_lets_a_request_be_taken_over(store: Store) -> None:
    async with running(store, requests_max=1) as mesh:
        first = mesh.generate()
        await first.read()
        second = mesh.generate(resume=pb.Resume())
        assert (await second.read()).HasField("started")
        assert (await failure(first)).reason == "TAKEN_OVER"
        second.cancel()


def ended(code: str) -> float:
    """How many generations have ended with this code."""
    return float(metrics.REQUESTS.labels(code)._value.get())


async def test_an_error_nobody_foresaw_is_counted_as_such(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Request:
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(service, "decode", fail)
    before = ended("INTERNAL"), ended("CANCELLED")
    assert (await failure(mesh.generate())).reason == "INTERNAL"
    assert (ended("INTERNAL"), ended("CANCELLED")) == (before[0] + 1, before[1])


async def test_a_client_that_leaves_is_counted_as_such(mesh: Mesh) -> None:
    before = ended("INTERNAL"), ended("CANCELLED")
    call = mesh.generate()
    await call.read()
    call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        while ended("CANCELLED") == before[1]:
            await mesh.store.ping()
    assert (ended("INTERNAL"), ended("CANCELLED")) == (before[0], before[1] + 1)


class Caller:
    """A call without metadata or deadline."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None


async def test_a_client_that_leaves_with_the_last_chunk_is_counted_as_served(mesh: Mesh) -> None:
    before = ended("OK"), ended("CANCELLED")
    servicer = mesh.service.servicers[0][1]
    responses = servicer.Generate(pb.GenerateRequest(request_id="r", text="hi", max_new_tokens=1), Caller())
    assert (await anext(responses)).HasField("started")
    mesh.scheduler.tell(await mesh.scheduler.take(), b"a", finish_reason=LENGTH)
    while not (await anext(responses)).HasField("finished"):
        pass
    await responses.aclose()
    assert (ended("OK"), ended("CANCELLED")) == (before[0] + 1, before[1])


async def test_a_full_mesh_refuses_at_the_door(store: Store) -> None:
    async with running(store, waiting_max=1) as mesh:
        call = mesh.generate()
        await call.read()
        assert (await failure(mesh.generate(request_id="other"))).reason == "ADMISSION_FULL"
        call.cancel()
