"""Long-lived bidirectional streams between peers: greeting, sending, credits, reconnecting.

`PeerLink` is the calling side: it dials, greets, reads, and dials again with back-off until closed. `accept` is the
serving side of one stream. Both send through a bounded outbox with one writer. Neither knows what messages mean,
except that a message's `hello` field greets. Whatever goes wrong over what a peer sent ends its stream, never the
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog

from cosine.core.errors import Full, MeshError, Mismatch
from cosine.rpc import hello
from cosine.rpc.channel import MESSAGE_BYTES_MAX, connection_options
from cosine.rpc.errors import internal
from cosine.rpc.hello import Identity

OUTBOX_MAX = 1024
BACKOFF_FIRST_S = 0.05
BACKOFF_LAST_S = 2.0
STEADY_S = 5.0  # a link that stood this long starts its back-off anew
GREETING_TIMEOUT_S = 10.0
END = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it

log = structlog.get_logger()


def channel_options(message_bytes_max: int = MESSAGE_BYTES_MAX) -> list[tuple[str, Any]]:
    """Options of every channel and server between peers: no proxies in between."""
    return [*connection_options(message_bytes_max), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True, slots=True)
class Joining:
    """How a message that waits takes in a later one about the same thing. `key` names what a message is about;
    `join(waiting, later)` lets the first say what the second would have said, or returns False where it cannot."""

    key: Callable[[Any], Hashable]
    join: Callable[[Any, Any], bool]


class Outbox:
    """What waits to be written on one stream. `send` never blocks and never fails: where the other side has stopped
    reading, the stream ends, and both sides hear of it as of any other loss.

    At most `message_count_max` messages wait; with `joining`, of those about the same thing mostly one.
    """

    def __init__(self, message_count_max: int = OUTBOX_MAX, joining: Joining | None = None) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(message_count_max)
        self._joining = joining
        self._joinable: dict[Hashable, Any] = {}  # the last message about each thing, while it waits
        self._stalled = asyncio.Event()
        self._has_ended = False
        self._reason = f"{message_count_max} messages wait for a peer that does not read"

    def give_up(self, reason: str) -> None:
        """Ends the stream."""
        self._reason = reason
        self._stalled.set()

    def send(self, message: Any) -> None:
        """Queues a message; drops it where the stream has ended or is about to."""
        if self._has_ended or self._is_joined(message):
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._stalled.set()

    def _is_joined(self, message: Any) -> bool:
        """True where a message that waits says it now as well; else this one may be joined from now on."""
        if self._joining is None:
            return False
        key = self._joining.key(message)
        waiting = self._joinable.get(key)
        if waiting is not None and self._joining.join(waiting, message):
            return True
        self._joinable[key] = message
        return False

    async def _next(self) -> Any:
        """The message that has waited longest; nothing is joined to it any more."""
        message = await self._queue.get()
        if self._joining is not None:
            key = self._joining.key(message)
            if self._joinable.get(key) is message:
                del self._joinable[key]
        return message

    async def flushed(self) -> None:
        """Waits until all that was sent is with the transport, or the stream has ended."""
        await self._queue.join()

    async def while_read(self, reading: Coroutine[Any, Any, None]) -> None:
        """Runs `reading` to its end. Raises Full as soon as the other side has stopped reading."""
        reader, stall = asyncio.ensure_future(reading), asyncio.ensure_future(self._stalled.wait())
        try:
            await asyncio.wait((reader, stall), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                raise Full("PEER_STALLED", self._reason)
            reader.result()
        finally:
            for task in (reader, stall):
                task.cancel()
            await asyncio.wait((reader, stall))

    @contextlib.asynccontextmanager
    async def written_by(self, write: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
        """Writes messages in order while the block runs. Once the stream has ended every write fails, each side of gRPC
        in its own way: why it ended is for the reader to tell."""
        writer = asyncio.create_task(self.drain_into(write))
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.wait((writer,))
            self._end()

    async def drain_into(self, write: Callable[[Any], Awaitable[None]]) -> None:
        """Writes messages in order, for ever."""
        while True:
            message = await self._next()
            try:
                await write(message)
            finally:
                self._queue.task_done()

    def _end(self) -> None:
        self._has_ended = True
        self._joinable.clear()
        while not self._queue.empty():
            self._queue.get_nowait()
            self._queue.task_done()


class LinkOwner(Protocol):
    """Who uses a link; called on the event loop, must not block."""

    def on_up(self, link: PeerLink, peer: Identity) -> None: ...

    def on_message(self, link: PeerLink, message: Any) -> None: ...

    def on_down(self, link: PeerLink, reason: str) -> None: ...


class Backoff:
    """Seconds until the next dial, doubled up to BACKOFF_LAST_S: with each dial that fails, and with each link in a row
    that did not stand for STEADY_S."""

    def __init__(self) -> None:
        self._last_s = BACKOFF_FIRST_S
        self._next_loss_s = BACKOFF_FIRST_S

    def missed(self) -> float:
        """A dial has failed."""
        self._last_s = _doubled(self._last_s)
        return self._last_s

    def lost(self, stood_s: float) -> float:
        """A link has ended that stood for `stood_s`."""
        self._last_s = BACKOFF_FIRST_S if stood_s >= STEADY_S else self._next_loss_s
        self._next_loss_s = _doubled(self._last_s)
        return self._last_s


def _doubled(delay_s: float) -> float:
    return min(2 * delay_s, BACKOFF_LAST_S)


class PeerLink:
    """One stream to one peer, kept up for ever. `method` names the stream on a channel, `request` its message type.
    No message may be larger than `message_bytes_max`, either way.

    Whoever else answers at the address is refused: it may have been given to another peer.
    """

    def __init__(
        self,
        peer_id: str,
        address: str,
        method: Callable[[grpc.aio.Channel], Any],
        request: Callable[..., Any],
        identity: Identity,
        expected_role: str,
        owner: LinkOwner,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.address = address
        self.peer: Identity | None = None
        self._peer_id = peer_id
        self._method = method
        self._request = request
        self._identity = identity
        self._expected_role = expected_role
        self._owner = owner
        self._options = channel_options(message_bytes_max)
        self._outbox: Outbox | None = None
        self._up_at_s = 0.0
        self._is_missed = False  # whether the log says that dialling fails

    @property
    def is_up(self) -> bool:
        return self._outbox is not None

    def send(self, message: Any) -> bool:
        """Queues a message; False where the link is down (`on_down` has told or will tell its owner)."""
        if self._outbox is None:
            return False
        self._outbox.send(message)
        return True

    def reset(self, reason: str) -> None:
        """Breaks the stream; the peer is dialled again."""
        if self._outbox is not None:
            self._outbox.give_up(reason)

    async def run(self) -> None:
        """Dials until cancelled. A peer that does not fit is tried again at the slowest pace."""
        backoff, now_s = Backoff(), asyncio.get_running_loop().time
        while True:
            refused = False
            try:
                async with grpc.aio.insecure_channel(self.address, options=self._options) as channel:
                    await self._converse(channel)
                reason = "peer closed the stream"
            except grpc.aio.AioRpcError as error:
                reason, refused = self._explain(error)
            except (MeshError, TimeoutError) as error:
                reason, refused = str(error) or "no greeting in time", isinstance(error, Mismatch)
                if refused:
                    log.error("peer refused", address=self.address, reason=reason)
            except Exception as error:  # the border
                reason, refused = internal(error, f"the link to {self.address}").message, True
            if self._lower(reason):
                delay = backoff.lost(now_s() - self._up_at_s)
            else:
                self._miss(reason, refused)
                delay = backoff.missed()
            await asyncio.sleep(BACKOFF_LAST_S if refused else delay * random.uniform(0.7, 1.3))

    def _explain(self, error: grpc.aio.AioRpcError) -> tuple[str, bool]:
        refused = error.code() == grpc.StatusCode.FAILED_PRECONDITION
        if refused:
            log.error("refused by peer", address=self.address, reason=error.details())
        return f"{error.code().name}: {error.details()}", refused

    def _lower(self, reason: str) -> bool:
        was_up = self._outbox is not None
        self._outbox = None
        if was_up:
            log.warning("link down", address=self.address, peer=self._peer_id, reason=reason)
            self._owner.on_down(self, reason)
        return was_up

    def _miss(self, reason: str, is_logged: bool) -> None:
        """A dial has failed; of several in a row the log has the first."""
        if not self._is_missed and not is_logged:
            log.warning("peer not reached", address=self.address, peer=self._peer_id, reason=reason)
        self._is_missed = True

    async def _converse(self, channel: grpc.aio.Channel) -> None:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            call = self._method(channel)()
            await call.write(self._request(hello=hello.to_proto(self._identity)))
            first = await call.read()
        if first is END:
            raise Mismatch("NO_GREETING", f"{self.address} ended the stream without a greeting")
        self.peer = self._checked(hello.from_proto(first.hello, self._expected_role))
        self._outbox = Outbox()
        self._up_at_s = asyncio.get_running_loop().time()
        self._is_missed = False
        log.info("link up", address=self.address, peer=self.peer.peer_id)
        try:
            async with self._outbox.written_by(call.write):
                self._owner.on_up(self, self.peer)
                await self._outbox.while_read(self._read(call))
        finally:
            call.cancel()

    def _checked(self, peer: Identity) -> Identity:
        if peer.peer_id != self._peer_id:
            raise Mismatch(
                "PEER_ID", f"{peer.peer_id!r} answers at {self.address} instead of {self._peer_id!r}; check --advertise"
            )
        return peer

    async def _read(self, call: Any) -> None:
        while (message := await call.read()) is not END:
            self._owner.on_message(self, message)


class StreamHandler(Protocol):
    """The serving side of one stream, made by `accept` once the caller has greeted."""

    def on_message(self, message: Any) -> None: ...

    def on_closed(self) -> None: ...


async def accept(
    context: grpc.aio.ServicerContext[Any, Any],
    identity: Identity,
    expected_role: str,
    response: Callable[..., Any],
    open_handler: Callable[[Identity, Outbox], StreamHandler],
    outbox: Outbox | None = None,
) -> None:
    """Serves one stream until the caller leaves: greets, then hands every message to the handler, which answers through
    `outbox` (default: a plain one). Raises Mismatch where the caller does not greet first, or not in time."""
    first = await _greeting(context)
    if first is END or first.WhichOneof("message") != "hello":
        raise Mismatch("NO_GREETING", "the first message of a stream must be a Hello")
    peer = hello.from_proto(first.hello, expected_role)
    await context.write(response(hello=hello.to_proto(identity)))
    outbox = outbox or Outbox()
    handler = open_handler(peer, outbox)
    log.info("peer attached", peer=peer.peer_id, role=peer.role)
    try:
        async with outbox.written_by(context.write):
            await outbox.while_read(_read(context, handler))
    finally:
        handler.on_closed()
        log.info("peer detached", peer=peer.peer_id, role=peer.role)


async def _greeting(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            return await context.read()  # faster than iterating over the requests: 0.24 ms against 0.32 a round trip
    except TimeoutError:
        raise Mismatch("NO_GREETING", f"no Hello came within {GREETING_TIMEOUT_S:g} s; send it first") from None


async def _read(context: grpc.aio.ServicerContext[Any, Any], handler: StreamHandler) -> None:
    while (message := await context.read()) is not END:
        handler.on_message(message)


class Credits:
    """Counts the unanswered work messages of one stream on the serving side."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def take(self) -> None:
        """One work message came. Raises Full where the caller has overdrawn."""
        if self._taken >= self._limit:
            raise Full("CREDITS_EXCEEDED", f"more than {self._limit} unanswered messages on one stream")
        self._taken += 1

    @property
    def taken(self) -> int:
        """Work messages that are unanswered."""
        return self._taken

    def give_back(self) -> None:
        """One answer went out."""
        self._taken -= 1
