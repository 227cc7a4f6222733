"""Where work for a model arrives: jobs of many streams, run on the engine's one thread, answered to whoever sent them.

Jobs that wait are merged into one forward pass as long as their sessions differ. A stream that ends, or says that
sessions ended, frees them. What a job means is for the service: it gives `Codec` functions and the computation.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cosine.core.errors import BadRequest, Full
from cosine.engine.base import Engine
from cosine.engine.worker import Worker
from cosine.rpc.hello import Bounds
from cosine.rpc.streams import Credits, Outbox
from cosine.rpc.telemetry import Spans


class SessionItem(Protocol):
    """One session's part of a job."""

    @property
    def session_id(self) -> str: ...


Item = TypeVar("Item", bound=SessionItem)
Result = TypeVar("Result")


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
class Codec(Generic[Item, Result]):
    """`parse` reads a stream's message (None: nothing to do); `answer` writes one: work id, results, microseconds."""

    parse: Callable[[Any], Work[Item] | Closing | None]
    answer: Callable[[int, Sequence[Result], int], Any]


@dataclass(frozen=True, slots=True)
class _Job(Generic[Item]):
    stream: DeskStream[Any, Any] | None
    work: Work[Item]
    closing: tuple[str, ...] = ()


class Desk(Generic[Item, Result]):
    """`compute` turns items into as many results, in order, on the engine's thread; `observe` hears of every run."""

    def __init__(
        self,
        engine: Engine,
        compute: Callable[[Engine, Sequence[Item]], list[Result]],
        codec: Codec[Item, Result],
        observe: Callable[[Sequence[Item], Sequence[Result], float], None],
    ) -> None:
        self.codec = codec
        self._engine = engine
        self._compute = compute
        self._observe = observe
        self._worker = Worker("engine")
        self._jobs: deque[_Job[Item]] = deque()
        self._arrived = asyncio.Event()
        self._sessions: set[str] = set()
        self._spans = Spans()

    @property
    def load(self) -> int:
        """Sessions that callers have not closed."""
        return len(self._sessions)

    def open_stream(self, outbox: Outbox, bounds: Bounds) -> DeskStream[Item, Result]:
        """The handler of a new stream."""
        return DeskStream(self, outbox, bounds)

    def add(self, job: _Job[Item]) -> None:
        """Queues a job; its stream's credits bound how many."""
        self._jobs.append(job)
        self._arrived.set()

    async def work(self) -> None:
        """Runs jobs for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._jobs:
                await self._run(self._take())

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
            await self._worker.run(lambda: self._engine.close(closing))
            return
        items = [item for job in jobs for item in job.work.items]
        self._sessions.update(item.session_id for item in items)
        for job in jobs:
            self._spans.start(id(job), "forward", job.work.traceparent)
        results, seconds = await self._worker.run(lambda: self._timed(items))
        done = iter(results)
        for job in jobs:
            own = [next(done) for _ in job.work.items]
            self._spans.end(id(job))
            if job.stream is not None:
                job.stream.answer(self.codec.answer(job.work.work_id, own, int(seconds * 1e6)))
        self._observe(items, results, seconds)

    def _timed(self, items: Sequence[Item]) -> tuple[list[Result], float]:
        start = time.perf_counter()
        size = self._engine.limits.sessions_max  # more sessions than slots would push one another out of one pass
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        results = [result for part in parts for result in self._compute(self._engine, part)]
        return results, time.perf_counter() - start


class DeskStream(Generic[Item, Result]):
    """One caller of a desk; see `cosine.rpc.streams.StreamHandler`."""

    def __init__(self, desk: Desk[Item, Result], outbox: Outbox, bounds: Bounds) -> None:
        self._desk = desk
        self._outbox = outbox
        self._batch_max = bounds.batch_max
        self._credits = Credits(bounds.credits)
        self._sessions: set[str] = set()

    def on_message(self, message: Any) -> None:
        parsed = self._desk.codec.parse(message)
        if isinstance(parsed, Work):
            self._credits.take()
            _check(parsed.items, self._batch_max)
            self._sessions.update(item.session_id for item in parsed.items)
            self._desk.add(_Job(self, parsed))
        elif isinstance(parsed, Closing):
            self._close(parsed.session_ids)

    def on_closed(self) -> None:
        self._close(tuple(self._sessions))

    def answer(self, message: Any) -> None:
        """Sends the answer to one work message."""
        self._credits.give_back()
        self._outbox.send(message)

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
