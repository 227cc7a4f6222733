"""A device with a queue: jobs that wait are merged into one run as long as their sessions differ, as a desk does.

What a run computes and how long that takes is for its owner to say; here jobs wait, run, are cancelled and answered.
Between jobs its owner may have it run what nobody has asked for yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cosine.sim.clock import Clock

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Run(Generic[Result]):
    """What a run gives: results in the order of its items, its seconds, and the grain at which it can be stopped. Those
    that `stand` are answered once the run has ended, even to jobs that were cancelled meanwhile."""

    results: list[Result]
    seconds: float
    grain_s: float
    stand: bool = False


@dataclass(frozen=True, slots=True)
class Unasked(Generic[Item]):
    """A run that nobody has asked for. It is given up at its next grain where jobs wait and it is not what all of their
    items need, as `wanted` says. `end` hears whether it has been finished."""

    seconds: float
    grain_s: float
    wanted: Callable[[Sequence[Item]], bool]
    end: Callable[[bool], None]


@dataclass(slots=True, eq=False)
class Job(Generic[Item, Result]):
    """Work of one message. `answer` gets the results and the seconds of the run it was part of. A job without items
    closes the sessions of `closing`."""

    owner: str
    work_id: int
    session_ids: frozenset[str]
    items: Sequence[Item]
    answer: Callable[[list[Result], float], None]
    closing: tuple[str, ...] = ()
    cancelled: bool = False


@dataclass(slots=True)
class _Running(Generic[Item, Result]):
    jobs: list[Job[Item, Result]]
    run: Run[Result]
    began: float
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Between(Generic[Item]):
    """An unasked run under way."""

    run: Unasked[Item]
    began: float
    ended: bool = False


@dataclass(slots=True)
class Usage:
    """Seconds of work, of waiting for work, of that what was spent unasked, and of work whose every job was cancelled;
    how many runs and items."""

    busy_s: float = 0.0
    idle_s: float = 0.0
    unasked_s: float = 0.0
    cancelled_s: float = 0.0
    run_count: int = 0
    item_count: int = 0


@dataclass(slots=True)
class Device(Generic[Item, Result]):
    """`compute` runs items of different sessions together, `give_up` says what is answered to cancelled ones (in their
    order among the others), `close` frees sessions. After jobs, while none waits, `idle` says again and again what to
    run unasked, until it says None."""

    clock: Clock
    compute: Callable[[Sequence[Item]], Run[Result]]
    give_up: Callable[[Sequence[Item]], list[Result]]
    close: Callable[[Sequence[str]], None]
    idle: Callable[[], Unasked[Item] | None] = lambda: None
    usage: Usage = field(default_factory=Usage)
    _queue: deque[Job[Item, Result]] = field(default_factory=deque)
    _running: _Running[Item, Result] | None = None
    _between: _Between[Item] | None = None
    _free_since: float = 0.0

    def add(self, job: Job[Item, Result]) -> None:
        """Takes a job; it runs when those before it have."""
        self._queue.append(job)
        if self._between is not None:
            self._question(self._between)
        elif self._running is None:
            self._start()

    def cancel(self, owner: str, work_ids: Sequence[int]) -> None:
        """Nobody waits for these any more: those that have not begun are dropped, a run that serves no other stops at
        its next grain."""
        running = self._running
        for job in (*self._queue, *(() if running is None else running.jobs)):
            job.cancelled |= job.owner == owner and job.work_id in work_ids
        if running is None:
            return
        if all(job.cancelled for job in running.jobs):
            self.clock.at(self._next_grain(running), lambda: self._end(running))

    def busy_s(self) -> float:
        """Seconds of work until now."""
        running = self._running
        return self.usage.busy_s + (0.0 if running is None else self.clock.now - running.began)

    def idle_s(self) -> float:
        """Seconds without work until now."""
        return self.usage.idle_s + (self.clock.now - self._free_since if self._running is None else 0.0)

    def _next_grain(self, under_way: _Running[Item, Result] | _Between[Item]) -> float:
        """When what is under way can be stopped."""
        run, began = under_way.run, under_way.began
        grains = (self.clock.now - began) // run.grain_s + 1 if run.grain_s else 0
        return min(began + run.seconds, began + grains * run.grain_s)

    def _start(self) -> None:
        while self._queue and (self._queue[0].closing or self._queue[0].cancelled):
            job = self._queue.popleft()
            if job.closing:
                self.close(job.closing)
            else:
                job.answer(self.give_up(job.items), 0.0)
        if self._running is not None:
            return
        if not self._queue:
            self._use_idle_time()
            return
        jobs = self._take()
        run = self.compute([item for job in jobs for item in job.items])
        self.usage.idle_s += self.clock.now - self._free_since
        self._running = running = _Running(jobs, run, self.clock.now)
        self.clock.after(run.seconds, lambda: self._end(running))

    def _use_idle_time(self) -> None:
        run = self.idle()
        if run is not None:
            self._between = between = _Between(run, self.clock.now)
            self.clock.after(run.seconds, lambda: self._end_between(between, finished=True))

    def _question(self, between: _Between[Item]) -> None:
        """Jobs wait: what is run unasked ends soon where it is not what they need."""
        items = [item for job in self._queue if not job.cancelled for item in job.items]
        if not between.run.wanted(items):
            self.clock.at(self._next_grain(between), lambda: self._end_between(between, finished=False))

    def _end_between(self, between: _Between[Item], finished: bool) -> None:
        if between.ended:
            return
        between.ended = True
        self._between = None
        self.usage.unasked_s += self.clock.now - between.began
        between.run.end(finished)
        self._start()

    def _take(self) -> list[Job[Item, Result]]:
        """The jobs at the head of the queue that fit into one run: no session twice."""
        taken = [self._queue.popleft()]
        seen = set(taken[0].session_ids)
        while self._queue and seen.isdisjoint(self._queue[0].session_ids):
            if self._queue[0].closing or self._queue[0].cancelled:
                break
            taken.append(self._queue.popleft())
            seen |= taken[-1].session_ids
        return taken

    def _end(self, running: _Running[Item, Result]) -> None:
        if running.ended:
            return
        running.ended = True
        self._running = None
        self._free_since = self.clock.now
        self._note(running)
        at = 0
        complete = running.run.stand and self.clock.now >= running.began + running.run.seconds
        for job in running.jobs:
            results = running.run.results[at : at + len(job.items)]
            at += len(job.items)
            given_up = job.cancelled and not complete
            job.answer(self.give_up(job.items) if given_up else results, running.run.seconds)
        if self._running is None:
            self._start()

    def _note(self, running: _Running[Item, Result]) -> None:
        took = self.clock.now - running.began
        self.usage.busy_s += took
        self.usage.cancelled_s += took if all(job.cancelled for job in running.jobs) else 0.0
        self.usage.run_count += 1
        self.usage.item_count += sum(len(job.items) for job in running.jobs)
