"""The one border between `MeshError` and gRPC: a table to status codes, both ways, and the interceptor that applies it.

An error travels as google.rpc.Status with ErrorInfo (reason, domain, metadata) and, where it is worth trying again,
RetryInfo; between scheduler and gateway as the `Failure` message. What is not a MeshError travels as INTERNAL with a
short id; its traceback is logged under that id and never leaves the process.

The SDK imports this module: it needs grpcio, grpcio-status and protobuf, and knows nothing of servers' settings.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cosine.core.errors import BadRequest, Cancelled, Expired, Full, MeshError, Mismatch, NotFound, Unavailable
from cosine.v1.scheduler_pb2 import Failure

DOMAIN = "cosine-mesh"
DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_CHARS_MAX = 1000  # a status travels in trailers, and those are limited to 8 KiB by default
DETAIL_CHARS_MAX = 256
DETAILS_MAX = 8
TOO_LARGE = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")  # gRPC's own words, whichever end says them

CODES: dict[type[MeshError], grpc.StatusCode] = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Mismatch: grpc.StatusCode.FAILED_PRECONDITION,
    Full: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cancelled: grpc.StatusCode.CANCELLED,
}

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_KINDS: dict[grpc.StatusCode, type[MeshError]] = {code: kind for kind, code in CODES.items()}

_log = logging.getLogger(__name__)


def code_of(error: MeshError) -> grpc.StatusCode:
    """The canonical code of an error; a MeshError outside the table is INTERNAL."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def to_status(error: MeshError) -> Status:
    """google.rpc.Status with ErrorInfo, and RetryInfo where the error says when to try again."""
    message = _shortened(error.message, MESSAGE_CHARS_MAX)
    status = Status(code=code_of(error).value[0], message=message)
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_bounded(error.details)))
    if error.retry_delay_ms > 0:
        delay = Duration()
        delay.FromMilliseconds(error.retry_delay_ms)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def from_status(status: Status) -> MeshError:
    """The error that a google.rpc.Status describes; without ErrorInfo its reason is the name of the code."""
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    reason, details, retry_delay_ms = code.name, {}, 0
    for packed in status.details:
        info, retry = ErrorInfo(), RetryInfo()
        if packed.Unpack(info):
            reason, details = info.reason, dict(info.metadata)
        elif packed.Unpack(retry):
            retry_delay_ms = retry.retry_delay.ToMilliseconds()
    return _KINDS.get(code, MeshError)(reason, status.message, details, retry_delay_ms)


def from_rpc_error(error: grpc.aio.AioRpcError) -> MeshError:
    """The error behind a failed call, whoever raised it: a peer of the mesh, gRPC itself, or a proxy between.

    A message over its size bound has gRPC's code for a full server, but will be no smaller next time.
    """
    code, message = error.code(), error.details() or ""
    for key, value in cast(Any, error.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = Status.FromString(value)
            if status.code == code.value[0]:
                return from_status(status)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (found := TOO_LARGE.search(message)):
        size, limit = found.groups()
        return BadRequest(
            "MESSAGE_TOO_LARGE",
            f"a message of {size} bytes is too large, at most {limit} are taken; send a shorter one",
            {"size": size, "limit": limit},
        )
    return from_status(Status(code=code.value[0], message=message))


def to_failure(error: MeshError) -> Failure:
    """The error as a message on a stream that goes on."""
    return Failure(
        code=code_of(error).value[0],
        reason=error.reason,
        message=_shortened(error.message, MESSAGE_CHARS_MAX),
        metadata=_bounded(error.details),
        retry_delay_ms=error.retry_delay_ms,
    )


def from_failure(failure: Failure) -> MeshError:
    """The error that a `Failure` message describes."""
    kind = _KINDS.get(_BY_NUMBER.get(failure.code, grpc.StatusCode.UNKNOWN), MeshError)
    return kind(failure.reason, failure.message, dict(failure.metadata), failure.retry_delay_ms)


def internal(error: BaseException, where: str) -> MeshError:
    """Logs an error nobody foresaw with its traceback, and returns what may be said of it outside: an id."""
    error_id = uuid.uuid4().hex[:12]
    fields = {"error_id": error_id, "where": where}
    _log.error("internal error %s in %s", error_id, where, exc_info=error, extra=fields)
    message = f"internal error {error_id}; the log of the process that served the call has the details"
    return MeshError("INTERNAL", message, {"error_id": error_id})


def mesh_error(error: Exception, where: str) -> MeshError:
    """The MeshError that `error` is, or that a task group failed with; anything else becomes `internal`."""
    if isinstance(error, MeshError):
        return error
    if isinstance(error, ExceptionGroup):
        known, unknown = error.split(MeshError)
        if known is not None and unknown is None:
            return _first(known)
    return internal(error, where)


def _first(group: ExceptionGroup[MeshError]) -> MeshError:
    error: MeshError | ExceptionGroup[MeshError] = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: MeshError) -> NoReturn:
    """Ends a call with the error's status."""
    # The stubs of grpc type the status for the synchronous server only.
    await cast(Any, context).abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort_with_status returned")


class Borders(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """The interceptor every server of the mesh carries: no exception crosses it unmapped, cancellation passes."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wraps the handler of one call, whatever its kind."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kinds = (handler.request_streaming, handler.response_streaming)
        name = "_".join("stream" if streaming else "unary" for streaming in kinds)
        behaviour = getattr(handler, name)
        wrap = _guarded_stream if inspect.isasyncgenfunction(behaviour) else _guarded_call
        build = getattr(grpc, f"{name}_rpc_method_handler")
        if handler.request_streaming or handler.request_deserializer is None:
            guarded = wrap(behaviour, handler_call_details.method, lambda request: request)
            return build(guarded, handler.request_deserializer, handler.response_serializer)
        read = functools.partial(_read, handler.request_deserializer)  # within our border, not before it
        return build(wrap(behaviour, handler_call_details.method, read), None, handler.response_serializer)


def _read(deserialize: Callable[[bytes], Any], raw: bytes) -> Any:
    """The request. Raises BadRequest where the bytes are none."""
    try:
        return deserialize(raw)
    except DecodeError as error:
        raise BadRequest("MALFORMED_MESSAGE", f"the request cannot be read: {error}; text must be UTF-8") from error


def _guarded_call(behaviour: Callable[..., Any], method: str, read: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(behaviour)
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behaviour(read(request), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the border
            await abort(context, mesh_error(error, method))

    return guarded


def _guarded_stream(behaviour: Callable[..., Any], method: str, read: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(behaviour)
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(behaviour(read(request), context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the border
            await abort(context, mesh_error(error, method))

    return guarded


def _shortened(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def _bounded(details: dict[str, str]) -> dict[str, str]:
    kept = list(details.items())[:DETAILS_MAX]
    return {key: _shortened(value, DETAIL_CHARS_MAX) for key, value in kept}
