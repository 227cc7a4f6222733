"""What is said of a call once it has ended: one count by status code, and a span that can be found and read.

It follows OpenTelemetry's rules for gRPC servers: every span has its status code, only the server's own faults are
errors. It decides nothing.
"""

from __future__ import annotations

import asyncio
import traceback
from types import TracebackType
from typing import Self

import grpc
from opentelemetry.trace import StatusCode

from cosine.core.errors import MeshError
from cosine.rpc.errors import code_of
from cosine.rpc.telemetry import span
from cosine.v1 import gateway_pb2 as pb
from services.gateway import metrics

REQUEST_ID = "cosine.request_id"
REQUEST_ID_CHARS_MAX = 128
OUR_FAULTS = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
# A client's deadline comes rounded up to three digits, and its cancellation may come before ours.
LATE_S = 0.1
LATE_SHARE = 0.01


class Account:
    """A context around one call to Generate. `deadline` is on the event loop's clock."""

    def __init__(self, request_id: str, traceparent: str, deadline: float) -> None:
        self.span = span("generate", traceparent)
        self.name(request_id)
        self._began_at = _now()
        self._deadline = deadline
        self._first = True
        self._finished = False

    def name(self, request_id: str) -> None:
        """The request's id, which may have been drawn here."""
        self.span.set_attribute(REQUEST_ID, request_id[:REQUEST_ID_CHARS_MAX])

    def send(self, response: pb.GenerateResponse) -> None:
        """Notes what the client is sent."""
        if self._first and response.HasField("chunk"):
            metrics.FIRST_CHUNK_SECONDS.observe(_now() - self._began_at)
            self._first = False
        metrics.OUTPUT_TOKENS.inc(len(response.chunk.token_ids))
        self._finished = self._finished or response.HasField("finished")  # the client may leave with it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        code = self._code(error)
        metrics.REQUESTS.labels(code.name).inc()
        self.span.set_attribute("rpc.grpc.status_code", code.value[0])
        if isinstance(error, Exception):
            self.span.record_exception(error)
            traceback.clear_frames(error.__traceback__)
        if code in OUR_FAULTS:
            self.span.set_status(StatusCode.ERROR, code.name)
        self.span.end()

    def _code(self, error: BaseException | None) -> grpc.StatusCode:
        if isinstance(error, MeshError):
            return code_of(error)
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and not self._finished:
            slack_s = LATE_S + LATE_SHARE * (self._deadline - self._began_at)
            late = _now() >= self._deadline - slack_s
            return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        return grpc.StatusCode.INTERNAL if isinstance(error, Exception) else grpc.StatusCode.OK


def _now() -> float:
    return asyncio.get_running_loop().time()
