"""Progress that waits for a gateway: joined, request by request, so that no burst is too long and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import Expired
from cosine.core.scheduler import Scheduler
from cosine.rpc import hello
from cosine.rpc.hello import Identity
from cosine.rpc.streams import END, OUTBOX_MAX
from cosine.v1 import scheduler_pb2 as pb
from cosine.v1 import types_pb2 as types
from services.scheduler import convert
from services.scheduler.service import SchedulerServicer

DEADLINE_S = 10.0
GATEWAY = Identity("gateway", "g", 1, model_id="m", vocab_size=257)
LOGPROB = (-0.5, (1, 2), (-0.5, -0.7))


class Call:
    """A gateway's stream as gRPC gives it. Once `reads` is unset, what is written waits."""

    def __init__(self) -> None:
        self.written: list[pb.AttachResponse] = []
        self.reads = asyncio.Event()
        self.leaves = asyncio.Event()
        self._has_greeted = False

    async def read(self) -> Any:
        if not self._has_greeted:
            self._has_greeted = True
            return pb.AttachRequest(hello=hello.to_proto(GATEWAY))
        await self.leaves.wait()
        return END

    async def write(self, message: pb.AttachResponse) -> None:
        self.written.append(pb.AttachResponse.FromString(message.SerializeToString()))
        if not message.HasField("hello"):
            await self.reads.wait()

    def told(self, request_id: str) -> list[pb.RequestProgress]:
        found = [message.progress for message in self.written if message.HasField("progress")]
        return [progress for progress in found if progress.request_id == request_id]


class Stage:
    """A scheduler's shell with one gateway attached, which does not read yet."""

    def __init__(self, live_max: int = 64) -> None:
        self.servicer = SchedulerServicer(
            Identity("scheduler", "s", 3), Scheduler(SchedulerConfig(live_max=live_max)), cast(Any, None)
        )
        self.call = Call()
        self.serving = asyncio.create_task(self.servicer.Attach(cast(Any, None), cast(Any, self.call)))

    def tell(self, request_id: str, offset: int, *tokens: int, attempt: int = 1, **more: Any) -> None:
        self.servicer._carry_out(ev.Progress("g", request_id, attempt, offset, tokens, **more))

    async def read_all(self) -> None:
        """Lets the gateway read what there is, and leave."""
        assert not self.serving.done(), "the stream has been reset"
        self.call.reads.set()
        await turns()
        self.call.leaves.set()
        async with asyncio.timeout(DEADLINE_S):
            await self.serving


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await turns()
    yield made
    made.serving.cancel()
    await asyncio.wait((made.serving,))


async def test_a_burst_beyond_the_outbox_resets_no_stream_and_loses_no_token(stage: Stage) -> None:
    count = 2 * OUTBOX_MAX
    stage.tell("a", 0)
    for number in range(count):
        stage.tell("a", number, number % 250, logprobs=(LOGPROB,))
        stage.tell("b", 100 + number, 7)
    await turns()
    await stage.read_all()
    taken, rest = stage.call.told("a")
    assert not taken.token_ids, "the first says that the request has been taken"
    assert (rest.offset, list(rest.token_ids)) == (0, [number % 250 for number in range(count)])
    assert len(rest.logprobs) == count
    (other,) = stage.call.told("b")
    assert (other.offset, list(other.token_ids)) == (100, [7] * count)


async def test_a_message_that_says_a_lot_already_grows_no_more(stage: Stage) -> None:
    count = convert.JOINED_TOKENS_MAX + 7
    stage.tell("a", 0)
    await turns()
    for number in range(count):
        stage.tell("a", number, 1)
    await stage.read_all()
    _, *told = stage.call.told("a")
    assert [(progress.offset, len(progress.token_ids)) for progress in told] == [
        (0, convert.JOINED_TOKENS_MAX),
        (convert.JOINED_TOKENS_MAX, 7),
    ]


async def test_what_is_joined_says_what_the_last_said_of_the_request(stage: Stage) -> None:
    stage.tell("first", 0)
    await turns()
    stage.tell("a", 3, 5, figures=ev.Figures(round_count=1, drafters=["x"]))
    stage.tell("a", 4, 6, figures=ev.Figures(round_count=2, drafters=["x", "y"]), finish="length")
    stage.tell("b", 0, 1)
    stage.tell("b", 1, error=Expired("DEADLINE_EXCEEDED", "too late"))
    await stage.read_all()
    (done,) = stage.call.told("a")
    assert (done.offset, list(done.token_ids)) == (3, [5, 6])
    assert (done.figures.round_count, list(done.figures.drafters)) == (2, ["x", "y"])
    assert done.finish_reason == types.FINISH_REASON_LENGTH
    (failed,) = stage.call.told("b")
    assert (list(failed.token_ids), failed.error.reason) == ([1], "DEADLINE_EXCEEDED")


async def test_another_attempt_and_another_request_of_the_same_name_are_told_apart(stage: Stage) -> None:
    stage.tell("first", 0)
    await turns()
    stage.tell("a", 0, 5, finish="stop_token")
    stage.tell("a", 1, 8, attempt=2)
    stage.tell("a", 0, 6)
    stage.tell("a", 1, 7)
    await stage.read_all()
    told = [(progress.attempt, progress.offset, list(progress.token_ids)) for progress in stage.call.told("a")]
    assert told == [(1, 0, [5]), (2, 1, [8]), (1, 0, [6, 7])]


async def test_all_requests_that_a_scheduler_holds_may_begin_and_end_at_once() -> None:
    stage = Stage(live_max=2 * OUTBOX_MAX)
    await turns()
    for number in range(2 * OUTBOX_MAX):
        stage.tell(f"r{number}", 0)
        stage.tell(f"r{number}", 0, 1)
        stage.tell(f"r{number}", 1, 2, finish="length")
    await turns()
    await stage.read_all()
