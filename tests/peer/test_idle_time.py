"""What a desk does while nobody asks: piece by piece, on the engine's thread, and never long in anybody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from cosine.core.plan import DraftItem
from cosine.core.running_ahead import best_path
from cosine.engine.base import Engine, EngineLimits
from cosine.engine.drafting import DraftResult, cancelled, draft
from cosine.engine.running_ahead import RunningAhead
from cosine.engine.toy import ToyEngine
from cosine.engine.verifying import Status
from cosine.peer.desk import TURNS, Closing, Codec, Desk, DeskStream, Work
from cosine.rpc.hello import Bounds
from cosine.rpc.streams import Outbox

DEADLINE_S = 10.0
CODEC = Codec(lambda message: message, lambda work_id, results, _: (work_id, results), cancelled)
TOY = "toy:seed=1,own=7,skill=0.8"


class Answers(asyncio.Queue[tuple[int, Sequence[DraftResult]]]):
    """An outbox that keeps what it is given."""

    def send(self, message: tuple[int, Sequence[DraftResult]]) -> None:
        self.put_nowait(message)

    async def next(self) -> tuple[int, Sequence[DraftResult]]:
        async with asyncio.timeout(DEADLINE_S):
            return await self.get()


class Pieces:
    """Idle work of so many pieces; each lasts until a job comes or the test ends it."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.log: list[str] = []
        self.begun = threading.Semaphore(0)
        self.ends = threading.Event()
        self.thread = 0

    def __call__(self, waiting: Callable[[], Sequence[DraftItem]]) -> bool:
        self.thread = threading.get_ident()
        if not self.left:
            self.log.append("nothing left")
            self.begun.release()
            return False
        self.begun.release()
        while not waiting() and not self.ends.is_set():
            self.ends.wait(0.001)
        self.left -= 1
        self.log.append("interrupted" if waiting() else "done")
        return True

    def compute(self, engine: Engine, items: Sequence[DraftItem], _stop: Callable[[str], bool]) -> list[DraftResult]:
        self.log.append("job")
        return [cancelled(item) for item in items]

    async def began(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=DEADLINE_S)


Bench = Desk[DraftItem, DraftResult]


@asynccontextmanager
async def working(desk: Bench, pieces: Pieces | None = None) -> AsyncIterator[Answers]:
    task = asyncio.create_task(desk.work())
    try:
        yield Answers()
    finally:
        task.cancel()
        if pieces is not None:  # the engine's thread would wait for ever, and the interpreter for it
            pieces.ends.set()


def toy() -> ToyEngine:
    return ToyEngine(TOY, "", EngineLimits(sessions_max=4))


def step(work_id: int, base_length: int = 0, *token_ids: int) -> Work[DraftItem]:
    return Work(work_id, (DraftItem("a", base_length, token_ids or (1, 2), run_ahead=True),))


async def test_a_job_ends_the_idle_piece_under_way_and_the_rest_follows_it() -> None:
    pieces = Pieces(2)
    desk = Desk(toy(), pieces.compute, CODEC, lambda *_: None, pieces)
    async with working(desk, pieces) as answers:
        stream = desk.open_stream(answers, Bounds())  # type: ignore[arg-type]  # stands in for it
        stream.on_message(step(1))
        await answers.next()
        await pieces.began()
        stream.on_message(step(2))
        assert (await answers.next())[0] == 2
        await pieces.began()
        pieces.ends.set()
        await pieces.began()
    assert pieces.log == ["job", "interrupted", "job", "done", "nothing left"]
    assert pieces.thread != threading.get_ident()


async def test_nothing_is_done_unasked_before_the_first_job() -> None:
    pieces = Pieces(1)
    pieces.ends.set()
    desk = Desk(toy(), pieces.compute, CODEC, lambda *_: None, pieces)
    async with working(desk, pieces) as answers:
        stream = desk.open_stream(answers, Bounds())  # type: ignore[arg-type]  # stands in for it
        stream.on_message(step(1))
        await pieces.began()
    assert pieces.log[0] == "job"


async def test_a_drafter_that_runs_ahead_answers_from_idle_time_and_forgets_with_the_session() -> None:
    engine = toy()
    ahead = RunningAhead(engine)
    rested = asyncio.Event()
    loop = asyncio.get_running_loop()

    def idle(waiting: Callable[[], Sequence[DraftItem]]) -> bool:
        more = ahead.idle(waiting)
        if not more:
            loop.call_soon_threadsafe(rested.set)
        return more

    desk: Bench = Desk(ahead.engine, lambda _, items, stop: ahead.draft(items, stop), CODEC, lambda *_: None, idle)
    async with working(desk) as answers, asyncio.timeout(DEADLINE_S):
        stream = desk.open_stream(answers, Bounds())  # type: ignore[arg-type]  # stands in for it
        stream.on_message(step(1))
        (first,) = (await answers.next())[1]
        await rested.wait()
        assert (ahead.foresight.pass_count, ahead.foresight.skipped_count) == (1, 0)
        rested.clear()
        stream.on_message(step(2, 2, *best_path(first.tree)))
        await answers.next()
        assert ahead.foresight.skipped_count == 1
        await rested.wait()
        rested.clear()
        stream.on_message(Closing(("a",)))
        await rested.wait()
        assert not engine.tokens("a")


class AtOnce:
    """A worker without a thread: what it is given runs at once, in the caller's turn of the loop."""

    async def run(self, call: Callable[[], object]) -> object:
        return call()


class Log(list[str]):
    """What happened in which order. As `compute` and `idle` of a desk it writes its own lines; `when_computing` is what
    happens meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.rested = asyncio.Event()
        self.when_computing: Callable[[], object] = lambda: None

    def compute(self, _engine: Engine, items: Sequence[DraftItem], _stop: Callable[[str], bool]) -> list[DraftResult]:
        self.append("job")
        self.when_computing()
        return [cancelled(item) for item in items]

    def idle(self, _waiting: Callable[[], Sequence[DraftItem]]) -> bool:
        self.append("unasked")
        self.rested.set()
        return False


@asynccontextmanager
async def bench(log: Log) -> AsyncIterator[DeskStream[DraftItem, DraftResult]]:
    """A stream of a desk whose every step shows in the log; its answers are written as a service writes them."""
    outbox = Outbox()

    async def write(_message: object) -> None:
        log.append("answer")

    desk: Bench = Desk(toy(), log.compute, CODEC, lambda *_: None, log.idle)
    desk.worker = AtOnce()  # type: ignore[assignment]  # stands in for it
    tasks = [asyncio.create_task(desk.work()), asyncio.create_task(outbox.drain_into(write))]
    try:
        yield desk.open_stream(outbox, Bounds())
    finally:
        for task in tasks:
            task.cancel()


async def test_an_answer_is_with_the_transport_before_anything_is_done_unasked() -> None:
    log = Log()
    async with asyncio.timeout(DEADLINE_S), bench(log) as stream:
        stream.on_message(step(1))
        await log.rested.wait()
    assert log == ["job", "answer", "unasked"]


async def test_a_message_that_reached_the_transport_during_a_job_goes_before_anything_unasked() -> None:
    """As gRPC delivers: its thread writes to a socket, the loop wakes and completes a read, whose task goes on."""
    log, loop = Log(), asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    read = loop.create_future()
    loop.add_reader(ours, lambda: (ours.recv(1), read.set_result(step(2))))
    async with asyncio.timeout(DEADLINE_S), bench(log) as stream:
        reader = asyncio.create_task(deliver(read, stream))
        log.when_computing = lambda: theirs.send(b"1") if log.count("job") == 1 else None
        stream.on_message(step(1))
        await log.rested.wait()
        await reader
        loop.remove_reader(ours)
    for end in (ours, theirs):
        end.close()
    assert [word for word in log if word != "answer"] == ["job", "job", "unasked"]


async def deliver(read: asyncio.Future[object], stream: DeskStream[DraftItem, DraftResult]) -> None:
    stream.on_message(await read)


async def test_idle_work_that_fails_is_the_last_and_its_sessions_begin_anew() -> None:
    begun = threading.Semaphore(0)

    def fail(_waiting: Callable[[], Sequence[DraftItem]]) -> bool:
        begun.release()
        raise RuntimeError("out of memory")

    desk = Desk(toy(), draft, CODEC, lambda *_: None, fail)
    async with working(desk) as answers:
        stream = desk.open_stream(answers, Bounds())  # type: ignore[arg-type]  # stands in for it

        async def status_of(*of_step: int) -> Status:
            stream.on_message(step(*of_step))
            return (await answers.next())[1][0].status

        assert await status_of(1) is Status.OK
        assert await asyncio.to_thread(begun.acquire, timeout=DEADLINE_S)
        assert await status_of(2, 2, 3) is Status.CACHE_MISS
        assert await status_of(3) is Status.OK
        for _ in range(2 * TURNS):
            await asyncio.sleep(0)
        assert await status_of(4, 2, 3) is Status.OK, "nothing has come between"
    assert not begun.acquire(blocking=False)
