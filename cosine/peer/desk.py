"""Where work for a model arrives: jobs of many streams, run on the engine's one thread, answered to whoever sent them.

Jobs that wait are merged into one forward pass as long as their sessions differ. A stream that ends, or says that
sessions ended, frees them. Jobs that their stream cancels, or leaves behind as it ends, are dropped from the queue, or
given up while they run; they are answered all the same. A desk that drains answers what it has and takes nothing new.
What a job means is for the service: it gives `Codec` functions and the computation. What a failing engine means is for
`cosine.peer.passes`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar, cast

from cosine.core.errors import BadRequest, Full, Unavailable
from cosine.engine.base import Engine
from cosine.engine.verifying import SessionItem, Status
from cosine.engine.worker import Worker
from cosine.peer.passes import Compute, Item, Passes, Result
from cosine.peer.slow_link import LinkPace, SlowLink
from cosine.rpc.errors import internal
from cosine.rpc.hello import Bounds
from cosine.rpc.streams import Credits, Outbox
from cosine.rpc.telemetry import Spans

# Turns of the event loop after which the last answer is with the transport (one), and a message that had reached us by
# then is a job: the transport's socket wakes the loop (two), and then its reader (three). Unasked work must not get
# between, since the engine's thread keeps the interpreter from the loop.
TURNS = 3
PASS_TIMEOUT_S = 60.0  # as long as a scheduler waits for a batch
FIRST_PASS_FACTOR = 5  # the first one may compile kernels


@dataclass(frozen=True, slots=True)
class Work(Generic[Item]):
    """A work message: its id on its stream, its items, and the trace it belongs to."""

    work_id: int
    items: tuple[Item, ...]
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """A message that ends sessions."""

    session_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cancelling:
    """A message that takes work messages back; ids that are neither waiting nor under way are ignored."""

    work_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Codec(Generic[Item, Result]):
    """`parse` reads a stream's message (None: nothing to do); `answer` writes one: work id, results, microseconds;
    `cancelled` is the result, a dataclass, of an item that was dropped."""

    parse: Callable[[Any], Work[Item] | Closing | Cancelling | None]
    answer: Callable[[int, Sequence[Result], int], Any]
    cancelled: Callable[[Item], Result]

    def unable(self, item: Item, status: Status, reason: str) -> Result:
        """The result of an item of which nothing is held any more; `reason` is told where results have room for it."""
        result: Any = self.cancelled(item)
        told = {"status": status, "cached_length": 0, "reason": reason}
        names = told.keys() & {field.name for field in fields(result)}
        return cast(Result, replace(result, **{name: told[name] for name in names}))


Made = TypeVar("Made")
Idle = Callable[[Callable[[], Sequence[Item]]], bool]


@dataclass(frozen=True, slots=True)
class _Job(Generic[Item]):
    stream: DeskStream[Any, Any] | None
    work: Work[Item]
    closing: tuple[str, ...] = ()
    byte_count: int = 0

    @property
    def id(self) -> int:
        return self.work.work_id


class Desk(Generic[Item, Result]):
    """`compute` turns items into as many results, in order, on the engine's thread; what it is given beside them says
    of a session, whenever asked, whether its job is cancelled. `observe` hears of every run and its seconds; of items
    that were dropped before it, with 0 seconds. While no job waits, `idle` runs on the engine's thread again and again
    until it says that it has nothing to do; what it is given tells the items of jobs that have come meanwhile, which it
    ought not to keep waiting. Once it has raised, it is left alone for good.

    An engine that takes longer over a pass than `pass_timeout_s`, over the first longer than FIRST_PASS_FACTOR times
    that, hangs: `work` raises, and the process is to end.

    Where a `link` is set, answers on streams opened from then on arrive as late as over that link.
    """

    def __init__(
        self,
        engine: Engine,
        compute: Compute[Item, Result],
        codec: Codec[Item, Result],
        observe: Callable[[Sequence[Item], Sequence[Result], float], None],
        idle: Idle[Item] | None = None,
    ) -> None:
        self.codec = codec
        self.link: LinkPace | None = None
        self.worker = Worker("engine")  # the thread that owns the engine
        self.pass_timeout_s = PASS_TIMEOUT_S
        self._passes = Passes(engine, compute, codec.unable)
        self._observe = observe
        self._idle = idle
        self._has_run = False
        self._jobs: deque[_Job[Item]] = deque()
        self._running: Sequence[_Job[Item]] = ()
        self._unwanted: set[str] = set()  # sessions of cancelled jobs under way; the engine's thread reads it
        self._arrived = asyncio.Event()
        self._sessions: set[str] = set()
        self._spans = Spans()
        self._streams: set[DeskStream[Item, Result]] = set()
        self._settled = asyncio.Event()
        self.is_draining = False

    @property
    def load(self) -> int:
        """Sessions that callers have not closed."""
        return len(self._sessions)

    def open_stream(self, outbox: Outbox, bounds: Bounds) -> DeskStream[Item, Result]:
        """The handler of a new stream."""
        stream = DeskStream(self, outbox, bounds)
        self._streams.add(stream)
        return stream

    async def drain(self) -> None:
        """Answers what streams have been promised, and returns once it is with the transport. Work that comes from now
        on stays unanswered: its sender hears of it when the stream ends, as of any loss."""
        self.is_draining = True
        while any(stream.owes for stream in self._streams):
            self._settled.clear()
            await self._settled.wait()
        for stream in list(self._streams):
            await stream.flushed()

    def settle(self, stream: DeskStream[Item, Result], has_ended: bool = False) -> None:
        """A stream has been answered, or has ended: nobody is owed anything there."""
        if has_ended:
            self._streams.discard(stream)
        self._settled.set()

    def add(self, job: _Job[Item]) -> None:
        """Queues a job; its stream's credits bound how many."""
        self._jobs.append(job)
        self._arrived.set()

    def cancel(self, stream: DeskStream[Any, Any], work_ids: Collection[int] | None = None) -> None:
        """Drops jobs of a stream that wait, and gives up those under way: the named ones, or all."""
        its = [job for job in (*self._jobs, *self._running) if job.stream is stream]
        named = {id(job) for job in its if work_ids is None or job.id in work_ids}
        for job in self._running:
            if id(job) in named:
                self._unwanted.update(item.session_id for item in job.work.items)
        dropped = [job for job in self._jobs if id(job) in named]
        self._jobs = deque(job for job in self._jobs if id(job) not in named)
        for job in dropped:
            results = [self.codec.cancelled(item) for item in job.work.items]
            self._answer(job, results, 0.0)
            self._observe(job.work.items, results, 0.0)

    async def work(self) -> None:
        """Runs jobs for ever; while none waits, what there is to do without one. Raises where the engine is broken."""
        restless = False
        while True:
            if not restless:
                await self._arrived.wait()
            self._arrived.clear()
            while self._jobs:
                await self._run(self._take())
                restless = True
            restless = restless and await self._use_idle_time()

    async def _use_idle_time(self) -> bool:
        """Does one piece of what can be done unasked, unless a job has come; False where nothing is left."""
        idle = self._idle
        if idle is None or self.is_draining:
            return False
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return bool(self._jobs) or await self._on_engine(lambda: self._try(idle))

    def _try(self, idle: Idle[Item]) -> bool:
        try:
            return idle(self._waiting)
        except Exception as error:  # the border
            internal(error, "a pass that nobody asked for")
        self._idle = None
        self._passes.failed(self._sessions)
        return False

    def _waiting(self) -> Sequence[Item]:
        """Items of the jobs that wait; the engine's thread may ask."""
        return [item for job in tuple(self._jobs) for item in job.work.items] if self._jobs else ()

    def _take(self) -> list[_Job[Item]]:
        """The jobs at the head of the queue that fit in one forward pass: no session twice, a closing alone."""
        taken = [self._jobs.popleft()]
        seen = {item.session_id for item in taken[0].work.items}
        while self._jobs and not taken[0].closing and not self._jobs[0].closing:
            names = {item.session_id for item in self._jobs[0].work.items}
            if names & seen:
                break
            seen |= names
            taken.append(self._jobs.popleft())
        return taken

    async def _run(self, jobs: Sequence[_Job[Item]]) -> None:
        closing = jobs[0].closing
        if closing:
            self._sessions.difference_update(closing)
            await self._on_engine(lambda: self._passes.close(closing))
            return
        items = [item for job in jobs for item in job.work.items]
        self._sessions.update(item.session_id for item in items)
        for job in jobs:
            self._spans.start(id(job), "forward", job.work.traceparent)
        self._running = jobs
        results, seconds = await self._on_engine(lambda: self._timed(items))
        self._has_run = True
        self._running = ()
        self._unwanted.clear()
        done = iter(results)
        for job in jobs:
            self._spans.end(id(job))
            self._answer(job, [next(done) for _ in job.work.items], seconds)
        self._observe(items, results, seconds)

    async def _on_engine(self, call: Callable[[], Made]) -> Made:
        """The result of a call, made on the engine's thread. Raises Unavailable where the engine hangs."""
        limit_s = self.pass_timeout_s * (1 if self._has_run else FIRST_PASS_FACTOR)
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self.worker.run(call)
        except TimeoutError:
            if not limit.expired():  # the call's own
                raise
            message = f"a pass has not ended within {limit_s:g} s; start again, if it was only slow with more"
            raise Unavailable("ENGINE_HANGS", f"{message} --pass-timeout-s") from None

    def _answer(self, job: _Job[Item], results: Sequence[Result], seconds: float) -> None:
        if job.stream is not None:
            job.stream.answer(self.codec.answer(job.id, results, int(seconds * 1e6)), job.byte_count)

    def _timed(self, items: Sequence[Item]) -> tuple[list[Result], float]:
        start = time.perf_counter()
        results = self._passes.run(items, self._unwanted.__contains__)
        return results, time.perf_counter() - start


class DeskStream(Generic[Item, Result]):
    """One caller of a desk; see `cosine.rpc.streams.StreamHandler`."""

    def __init__(self, desk: Desk[Item, Result], outbox: Outbox, bounds: Bounds) -> None:
        self._desk = desk
        self._outbox = outbox
        self._batch_max = bounds.batch_max
        self._credits = Credits(bounds.credits)
        self._link = SlowLink(desk.link) if desk.link is not None else None
        self._sessions: set[str] = set()

    @property
    def owes(self) -> bool:
        """True while work is unanswered."""
        return self._credits.taken > 0

    async def flushed(self) -> None:
        """Waits until all answers are with the transport."""
        await self._outbox.flushed()

    def on_message(self, message: Any) -> None:
        parsed = self._desk.codec.parse(message)
        if isinstance(parsed, Work):
            if self._desk.is_draining:
                return
            self._credits.take()
            _check(parsed.items, self._batch_max)
            self._sessions.update(item.session_id for item in parsed.items)
            self._desk.add(_Job(self, parsed, byte_count=message.ByteSize() if self._link is not None else 0))
        elif isinstance(parsed, Closing):
            self._close(parsed.session_ids)
        elif isinstance(parsed, Cancelling):
            self._desk.cancel(self, parsed.work_ids)

    def on_closed(self) -> None:
        self._desk.cancel(self)
        if self._link is not None:
            self._link.close()
        self._close(tuple(self._sessions))
        self._desk.settle(self, has_ended=True)

    def answer(self, message: Any, asked_byte_count: int = 0) -> None:
        """Sends the answer to one work message, which had `asked_byte_count` bytes."""
        if self._link is None:
            self._send(message)
        else:
            self._link.deliver(asked_byte_count + message.ByteSize(), lambda: self._send(message))

    def _send(self, message: Any) -> None:
        self._credits.give_back()
        self._outbox.send(message)
        self._desk.settle(self)

    def _close(self, session_ids: tuple[str, ...]) -> None:
        self._sessions.difference_update(session_ids)
        if session_ids:
            self._desk.add(_Job(None, Work(0, ()), session_ids))


def _check(items: Sequence[SessionItem], batch_max: int) -> None:
    """Raises Full or BadRequest where a work message breaks its contract."""
    if len(items) > batch_max:
        raise Full("BATCH_TOO_LARGE", f"{len(items)} sessions in one message; at most {batch_max} are taken")
    seen: set[str] = set()
    for item in items:
        if item.session_id in seen:
            raise BadRequest("SESSION_TWICE", f"session {item.session_id!r} comes twice in one message; send it once")
        seen.add(item.session_id)
