"""Streams between peers: what is sent is bounded and in order, and whatever ends a stream, the process goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from cosine.core.errors import Full, Mismatch
from cosine.rpc import hello, streams
from cosine.rpc.hello import Identity
from cosine.rpc.streams import END, OUTBOX_MAX, Outbox, PeerLink, accept
from cosine.v1 import drafter_pb2 as pb

DEADLINE_S = 10.0
FINISHED = asyncio.InvalidStateError("RPC already finished.")  # what gRPC raises at who writes on an ended call


class Call:
    """One stream as gRPC gives it: `reads` come after the greeting, one `next_read` each; writes fail as told."""

    def __init__(self, greeting: Any, *reads: Any, write_error: Exception | None = None) -> None:
        self.written: list[Any] = []
        self.wrote = asyncio.Event()
        self.next_read = asyncio.Semaphore(0)
        self._reads = [greeting, *reads]
        self._error = write_error

    async def write(self, message: Any) -> None:
        self.wrote.set()
        if self._error is not None and not message.HasField("hello"):
            raise self._error
        self.written.append(message)

    async def read(self) -> Any:
        if len(self._reads) > 1:
            return self._reads.pop(0)
        async with self.next_read:
            return self._reads[0]

    def cancel(self) -> None:
        self.next_read.release()


class Away(Call):
    """A stream to an address where nobody listens."""

    def __init__(self) -> None:
        super().__init__(None)

    async def write(self, message: Any) -> None:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "connection refused")


class Owner:
    """Writes down what a link tells; `breaks` says that it cannot bear messages."""

    def __init__(self, breaks: bool = False) -> None:
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self._breaks = breaks

    def on_up(self, _link: PeerLink, peer: Identity) -> None:
        self.events.put_nowait(f"{peer.peer_id} up")

    def on_message(self, _link: PeerLink, _message: Any) -> None:
        if self._breaks:
            raise IndexError("a message that nobody foresaw")

    def on_down(self, _link: PeerLink, reason: str) -> None:
        self.events.put_nowait(f"down: {reason}")

    async def next(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            return await self.events.get()


def greeting(peer_id: str = "d") -> pb.DraftResponse:
    return pb.DraftResponse(hello=hello.to_proto(Identity("drafter", peer_id)))


def step(step_id: int = 1) -> pb.DraftRequest:
    return pb.DraftRequest(step=pb.DraftStep(step_id=step_id))


@asynccontextmanager
async def linked(owner: Owner, *calls: Call) -> AsyncIterator[tuple[PeerLink, asyncio.Task[None]]]:
    """A link to the drafter "d" whose first dials lead to these calls."""
    ahead = iter(calls)
    us = Identity("fusion", "f")
    link = PeerLink("d", "127.0.0.1:1", lambda _: lambda: next(ahead), pb.DraftRequest, us, "drafter", owner)
    task = asyncio.create_task(link.run())
    try:
        yield link, task
    finally:
        task.cancel()
        await asyncio.wait((task,))


@pytest.fixture(autouse=True)
def _dials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BACKOFF_FIRST_S", 0.0)
    monkeypatch.setattr(streams, "BACKOFF_LAST_S", 0.0)


async def test_a_link_outlives_a_peer_that_ends_the_stream_while_it_is_written_to() -> None:
    ended, fine = Call(greeting(), END, write_error=FINISHED), Call(greeting(), END)
    owner = Owner()
    async with linked(owner, ended, fine) as (link, task):
        assert await owner.next() == "d up"
        assert link.send(step())
        async with asyncio.timeout(DEADLINE_S):
            await ended.wrote.wait()
            ended.wrote.clear()
            await ended.wrote.wait()
        ended.next_read.release()
        assert await owner.next() == "down: peer closed the stream"
        assert await owner.next() == "d up", "it is dialled again"
        assert not task.done()


async def test_an_owner_that_cannot_bear_a_message_loses_the_link_and_not_the_process() -> None:
    broken, fine = Call(greeting(), pb.DraftResponse(), END), Call(greeting(), END)
    owner = Owner(breaks=True)
    async with linked(owner, broken, fine) as (_, task):
        assert await owner.next() == "d up"
        assert (await owner.next()).startswith("down: internal error ")
        assert await owner.next() == "d up"
        assert not task.done()


class Handler:
    """The serving side, which sends one message at once."""

    def __init__(self, outbox: Outbox) -> None:
        self.is_closed = False
        outbox.send(step())

    def on_message(self, _message: Any) -> None:
        raise AssertionError("nothing is sent here")

    def on_closed(self) -> None:
        self.is_closed = True


async def served(call: Call) -> None:
    """Serves one stream to its end, which comes once the handler's message has been tried."""
    handlers: list[Handler] = []

    def opened(_peer: Identity, outbox: Outbox) -> Handler:
        handlers.append(Handler(outbox))
        return handlers[0]

    serving = asyncio.create_task(
        accept(call, Identity("drafter", "d"), "fusion", pb.DraftResponse, opened)  # type: ignore[arg-type]  # stands in for it
    )
    async with asyncio.timeout(DEADLINE_S):
        await call.wrote.wait()
        call.wrote.clear()
        await call.wrote.wait()
        call.next_read.release()
        await serving
    assert handlers[0].is_closed


def fusion_greets() -> pb.DraftRequest:
    return pb.DraftRequest(hello=hello.to_proto(Identity("fusion", "f")))


async def test_a_served_stream_leaves_no_writer_behind() -> None:
    call = Call(fusion_greets(), END)
    stuck = asyncio.Event()
    written = call.write

    async def write(message: Any) -> None:
        await written(message)
        if not message.HasField("hello"):
            try:
                await stuck.wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)

    call.write = write  # type: ignore[method-assign]  # one call that hangs
    await served(call)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_outbox_holds_so_many_messages_and_then_ends_the_stream() -> None:
    outbox = Outbox()
    for number in range(OUTBOX_MAX):
        outbox.send(number)
    still = asyncio.create_task(outbox.while_read(asyncio.Event().wait()))  # type: ignore[arg-type]  # any coroutine ends some day
    for _ in range(3):
        await asyncio.sleep(0)
    assert not still.done(), "what fits is no reason"
    outbox.send("one too many")
    with pytest.raises(Full) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await still
    assert caught.value.reason == "PEER_STALLED"


async def test_messages_are_written_in_order_and_flushing_waits_for_the_last() -> None:
    outbox, written, go_on = Outbox(), list[int](), asyncio.Event()

    async def write(number: int) -> None:
        await go_on.wait()
        written.append(number)

    for number in range(3):
        outbox.send(number)
    flushing = asyncio.create_task(outbox.flushed())
    async with asyncio.timeout(DEADLINE_S), outbox.written_by(write):
        for _ in range(3):
            await asyncio.sleep(0)
        assert not flushing.done()
        go_on.set()
        await flushing
        assert written == [0, 1, 2]


async def test_nothing_waits_for_what_was_sent_on_a_stream_that_has_ended() -> None:
    outbox = Outbox()

    async def never(_message: object) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_S):
        async with outbox.written_by(never):
            outbox.send(1)
            outbox.send(2)
        outbox.send(3)
        await outbox.flushed()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a link waits before each dial but the first; nobody really waits, and no dice are cast."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(streams, "BACKOFF_FIRST_S", 1.0)
    monkeypatch.setattr(streams, "BACKOFF_LAST_S", 8.0)
    monkeypatch.setattr(streams.random, "uniform", lambda *_: 1.0)
    monkeypatch.setattr(streams.asyncio, "sleep", pause)
    return waited


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The event loop's time, which stands still until a test changes it."""
    loop = asyncio.get_running_loop()
    now = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now[0])
    return now


async def ended(owner: Owner, call: Call) -> None:
    """Lets a stream begin and end."""
    assert await owner.next() == "d up"
    call.next_read.release()
    assert await owner.next() == "down: peer closed the stream"


async def test_a_peer_that_ends_every_stream_is_dialled_ever_more_rarely(
    pauses: list[float], clock: list[float]
) -> None:
    owner = Owner()
    calls = [Call(greeting(), END) for _ in range(6)]
    async with linked(owner, *calls, Call(greeting(), END)):
        for call in calls:
            await ended(owner, call)
    assert pauses == [1, 2, 4, 8, 8, 8]


async def test_a_link_that_stood_for_long_is_dialled_again_at_once(pauses: list[float], clock: list[float]) -> None:
    owner = Owner()
    calls = [Call(greeting(), END) for _ in range(5)]
    stood_s = (0.0, 0.0, 0.9 * streams.STEADY_S, streams.STEADY_S, 0.0)
    async with linked(owner, *calls, Call(greeting(), END)):
        for call, seconds in zip(calls, stood_s, strict=True):
            assert await owner.next() == "d up"
            clock[0] += seconds
            call.next_read.release()
            await owner.next()
    assert pauses == [1, 2, 4, 1, 2]


async def test_dials_that_failed_do_not_delay_the_first_one_after_a_loss(
    pauses: list[float], clock: list[float]
) -> None:
    owner, calls = Owner(), (Call(greeting(), END), Call(greeting(), END))
    async with linked(owner, Away(), Away(), Away(), calls[0], Away(), calls[1], Call(greeting(), END)):
        for call in calls:
            await ended(owner, call)
    assert pauses == [2, 4, 8, 1, 2, 2]


async def test_of_dials_that_fail_in_a_row_the_first_is_logged() -> None:
    owner = Owner()
    calls = Away(), Away(), Call(greeting(), END), Away(), Away(), Call(greeting(), END)
    with capture_logs() as lines:
        async with linked(owner, *calls):
            assert await owner.next() == "d up"
            calls[2].next_read.release()
            assert await owner.next() == "down: peer closed the stream"
            assert await owner.next() == "d up"
    missed = {
        "event": "peer not reached",
        "log_level": "warning",
        "address": "127.0.0.1:1",
        "peer": "d",
        "reason": "UNAVAILABLE: connection refused",
    }
    events = [line["event"] for line in lines]
    assert events == ["peer not reached", "link up", "link down", "peer not reached", "link up"]
    assert lines[0] == lines[3] == missed


async def test_whoever_answers_in_place_of_a_peer_is_refused_by_name() -> None:
    owner = Owner()
    with capture_logs() as lines:
        async with linked(owner, Call(greeting("e"), END), Call(greeting(), END)):
            assert await owner.next() == "d up", "and nothing of the stranger"
    (refusal, _) = lines
    assert refusal["event"] == "peer refused"
    assert "'e' answers at 127.0.0.1:1 instead of 'd'" in refusal["reason"]


async def test_a_caller_that_does_not_greet_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GREETING_TIMEOUT_S", 0.0)
    silent = Call(None)

    def opened(_peer: Identity, _outbox: Outbox) -> Handler:
        raise AssertionError("nobody has greeted")

    with pytest.raises(Mismatch) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await accept(silent, Identity("drafter", "d"), "fusion", pb.DraftResponse, opened)  # type: ignore[arg-type]  # stands in for it
    assert caught.value.reason == "NO_GREETING"
