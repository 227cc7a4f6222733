"""A desk on an engine whose passes wait for the test, for tests of desks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from cosine.core.tree import chain
from cosine.engine.base import Engine, EngineLimits, Segment
from cosine.engine.drafting import cancelled as cancelled_draft
from cosine.engine.drafting import draft
from cosine.engine.toy import ToyEngine, ToyLogits
from cosine.engine.verifying import Status, Verdict, VerifyItem, cancelled, verify
from cosine.peer.desk import Codec, Desk, DeskStream, Work
from cosine.rpc.hello import Bounds

DEADLINE_S = 10.0

Answer = tuple[int, Sequence[Verdict]]


class Watched(ToyEngine):
    """A toy whose passes are written down; each waits until it is let go, is then asked whether to stop, and fails if
    it is one of the next `failures_left`."""

    def __init__(self) -> None:
        super().__init__("toy:seed=1", "", EngineLimits(sessions_max=4))
        self.passes: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.failures_left = 0

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> ToyLogits:
        self.passes.append([segment.session_id for segment in segments])
        self.entered.release()
        assert self.let_go.acquire(timeout=DEADLINE_S)
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("out of memory")
        return super().forward(segments, stop)


class Answers(asyncio.Queue[tuple[int, Sequence[Verdict]]]):
    """An outbox that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.with_transport = asyncio.Event()
        self.with_transport.set()

    def send(self, message: Answer) -> None:
        self.put_nowait(message)

    async def flushed(self) -> None:
        await self.with_transport.wait()

    async def next(self) -> tuple[int, list[Status]]:
        """Id and statuses of the next answer."""
        async with asyncio.timeout(DEADLINE_S):
            work_id, results = await self.get()
        return work_id, [result.status for result in results]


class Bench:
    """A verifier's or a drafter's desk at work, on an engine that runs a pass when the test says so."""

    def __init__(self, drafts: bool) -> None:
        self.engine = Watched()
        self.seen: list[tuple[int, float]] = []
        codec = Codec(lambda message: message, lambda work_id, results, _: (work_id, results), cancelled)
        if drafts:
            drafting = Codec(codec.parse, codec.answer, cancelled_draft)
            self.desk: Desk = Desk(self.engine, draft, drafting, self._observe)  # type: ignore[type-arg]  # of drafts or of verdicts
        else:
            self.desk = Desk(self.engine, compute, codec, self._observe)

    def stream(self, credit_count: int = 8) -> tuple[DeskStream, Answers]:  # type: ignore[type-arg]  # of drafts or of verdicts
        answers = Answers()
        return self.desk.open_stream(answers, Bounds(credits=credit_count, batch_max=8)), answers  # type: ignore[arg-type]  # stands in for it

    async def entered(self) -> None:
        """Returns once the engine has begun a pass."""
        assert await asyncio.to_thread(self.engine.entered.acquire, timeout=DEADLINE_S)

    def go_on(self, pass_count: int = 1) -> None:
        self.engine.let_go.release(pass_count)

    def _observe(self, items: Sequence[object], _results: Sequence[object], seconds: float) -> None:
        self.seen.append((len(items), seconds))


def compute(engine: Engine, items: Sequence[VerifyItem], unwanted: Callable[[str], bool]) -> list[Verdict]:
    return verify(engine, items, lambda: all(unwanted(item.session_id) for item in items))


@asynccontextmanager
async def working(drafts: bool = False) -> AsyncIterator[Bench]:
    bench = Bench(drafts)
    task = asyncio.create_task(bench.desk.work())
    yield bench
    task.cancel()


def work(work_id: int, *session_ids: str) -> Work[VerifyItem]:
    return Work(work_id, tuple(VerifyItem(session_id, 0, (1, 2), chain([5])) for session_id in session_ids))


async def settled() -> None:
    """All that can happen by itself has happened."""
    for _ in range(5):
        await asyncio.sleep(0)
