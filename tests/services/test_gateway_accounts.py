"""What is said of a call that has ended: its count by status code, and its span."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from gateway_stage import LENGTH, PATIENCE_S, Mesh, failure, rest
from grpc import StatusCode as Code
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode

from cosine.core.errors import BadRequest, Expired, MeshError
from cosine.rpc.errors import to_failure
from cosine.v1 import gateway_pb2 as pb
from services.gateway import account, metrics
from services.gateway.account import LATE_S, REQUEST_ID, Account

ENDED = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "INVALID_ARGUMENT")


class Spans(SpanProcessor):
    """The gateway's spans, as they end."""

    def __init__(self) -> None:
        self._ended: asyncio.Queue[ReadableSpan] = asyncio.Queue()

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.put_nowait(span)

    async def next(self) -> ReadableSpan:
        return await asyncio.wait_for(self._ended.get(), PATIENCE_S)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    provider, spans = TracerProvider(), Spans()
    provider.add_span_processor(spans)
    monkeypatch.setattr(account, "span", lambda name, parent: provider.get_tracer("cosine").start_span(name))
    yield spans
    provider.shutdown()


def counts() -> dict[str, float]:
    """How many calls have ended with each code."""
    return {code: float(metrics.REQUESTS.labels(code)._value.get()) for code in ENDED}


async def ended(error: BaseException | None, left_s: float, *sent: pb.GenerateResponse) -> str:
    """The code under which a call is counted that ends so, with as much time left."""
    before = counts()
    deadline = asyncio.get_running_loop().time() + left_s
    with suppress(BaseException), Account("r", "", deadline) as call:
        for response in sent:
            call.send(response)
        if error is not None:
            raise error
    (code,) = [code for code, count in counts().items() if count != before[code]]
    return code


@pytest.mark.parametrize("leaving", [GeneratorExit, asyncio.CancelledError])
async def test_a_client_that_leaves_when_its_time_is_over_has_seen_its_deadline_pass(
    leaving: type[BaseException],
) -> None:
    assert await ended(leaving(), -1.0) == "DEADLINE_EXCEEDED"
    assert await ended(leaving(), LATE_S) == "DEADLINE_EXCEEDED"  # its clock began before ours
    assert await ended(leaving(), PATIENCE_S) == "CANCELLED"


async def test_a_client_that_leaves_with_the_last_word_was_served_however_late() -> None:
    assert await ended(GeneratorExit(), -1.0, pb.GenerateResponse(finished={})) == "OK"
    assert await ended(None, -1.0) == "OK"


async def test_an_error_is_counted_by_its_code_however_late() -> None:
    assert await ended(BadRequest("STOP", "shorten it"), -1.0) == "INVALID_ARGUMENT"
    assert await ended(ValueError("nobody foresaw this"), -1.0) == "INTERNAL"


def told(span: ReadableSpan) -> tuple[Any, Any, StatusCode, list[Any]]:
    """Request id, status code, whether it is our fault, types of the exceptions in it."""
    attributes = span.attributes or {}
    exceptions = [(event.attributes or {})["exception.type"] for event in span.events]
    return attributes[REQUEST_ID], attributes["rpc.grpc.status_code"], span.status.status_code, exceptions


async def test_the_span_of_a_served_request_has_its_id(mesh: Mesh, spans: Spans) -> None:
    call = mesh.generate(request_id="", max_new_tokens=1)
    request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
    await rest(call)
    assert told(await spans.next()) == (request.request_id, 0, StatusCode.UNSET, [])


FAILURES: list[tuple[MeshError, Code, StatusCode]] = [
    (Expired("DEADLINE_EXCEEDED", "too late"), Code.DEADLINE_EXCEEDED, StatusCode.ERROR),
    (BadRequest("SESSION_TOO_LONG", "shorten it"), Code.INVALID_ARGUMENT, StatusCode.UNSET),
]


@pytest.mark.parametrize(("error", "code", "status"), FAILURES, ids=[error.reason for error, *_ in FAILURES])
async def test_the_span_of_a_failed_request_has_id_code_and_error(
    mesh: Mesh, spans: Spans, error: MeshError, code: Code, status: StatusCode
) -> None:
    call = mesh.generate()
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(error))
    await failure(call)
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    assert told(await spans.next()) == ("r", code.value[0], status, [name])


async def test_the_span_of_a_refused_request_has_the_id_the_client_gave(mesh: Mesh, spans: Spans) -> None:
    await failure(mesh.generate(request_id="no such id " * 50))
    name, code, *_ = told(await spans.next())
    assert (len(name), code) == (128, Code.INVALID_ARGUMENT.value[0])
