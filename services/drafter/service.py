"""The drafter's servicer: collects the steps that wait, runs them as one batch on the engine's thread, answers each.

Steps of several callers share a forward pass as long as their sessions differ.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from cosine.engine.base import Engine
from cosine.engine.drafting import DraftItem, DraftResult, draft
from cosine.engine.worker import Worker
from cosine.rpc import convert
from cosine.rpc.hello import Identity
from cosine.rpc.metrics import DRAFTER_FORWARD_SECONDS, DRAFTER_TOKENS
from cosine.rpc.streams import Credits, Outbox, accept
from cosine.v1 import drafter_pb2 as pb
from cosine.v1.drafter_pb2_grpc import DrafterServiceServicer


@dataclass(frozen=True, slots=True)
class Job:
    """A step of one stream, and where its answer goes; or sessions to close, where `outbox` is None."""

    step_id: int
    items: tuple[DraftItem, ...]
    outbox: Outbox | None
    credits: Credits | None = None
    closing: tuple[str, ...] = ()


class DrafterServicer(DrafterServiceServicer):
    """Serves streams; `work` is its one background task."""

    def __init__(self, engine: Engine, identity: Identity) -> None:
        self._engine = engine
        self._identity = identity
        self._worker = Worker("drafter")
        self._jobs: list[Job] = []
        self._arrived = asyncio.Event()
        self._sessions: set[str] = set()

    @property
    def load(self) -> int:
        """Sessions that callers have not closed."""
        return len(self._sessions)

    async def Draft(
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            request_iterator,
            context,
            self._identity,
            "fusion",
            pb.DraftResponse,
            lambda _peer, outbox: _Stream(self, outbox, self._identity.bounds.credits),
        )

    def add(self, job: Job) -> None:
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

    def _take(self) -> list[Job]:
        """The jobs at the head of the queue that fit in one forward pass: no session twice, closings alone."""
        taken: list[Job] = []
        seen: set[str] = set()
        while self._jobs:
            job = self._jobs[0]
            names = {item.session_id for item in job.items}
            if taken and (job.outbox is None or taken[0].outbox is None or names & seen):
                break
            seen |= names
            taken.append(self._jobs.pop(0))
        return taken

    async def _run(self, jobs: Sequence[Job]) -> None:
        if jobs[0].outbox is None:
            closing = jobs[0].closing
            self._sessions.difference_update(closing)
            await self._worker.run(lambda: self._engine.close(closing))
            return
        items = [item for job in jobs for item in job.items]
        self._sessions.update(item.session_id for item in items)
        results, forward_us = await self._worker.run(lambda: _timed_draft(self._engine, items))
        DRAFTER_FORWARD_SECONDS.observe(forward_us / 1e6)
        DRAFTER_TOKENS.inc(sum(len(result.tree) for result in results))
        done = iter(results)
        for job in jobs:
            _answer(job, [next(done) for _ in job.items], forward_us)


class _Stream:
    """One caller."""

    def __init__(self, servicer: DrafterServicer, outbox: Outbox, credits: int) -> None:
        self._servicer = servicer
        self._outbox = outbox
        self._credits = Credits(credits)
        self._sessions: set[str] = set()

    def on_message(self, message: pb.DraftRequest) -> None:
        if message.HasField("step"):
            self._credits.take()
            items = tuple(_item(item) for item in message.step.items)
            self._sessions.update(item.session_id for item in items)
            self._servicer.add(Job(message.step.step_id, items, self._outbox, self._credits))
        elif message.HasField("close"):
            self._close(tuple(message.close.session_ids))

    def on_closed(self) -> None:
        self._close(tuple(self._sessions))

    def _close(self, session_ids: tuple[str, ...]) -> None:
        self._sessions.difference_update(session_ids)
        self._servicer.add(Job(0, (), None, closing=session_ids))


def _timed_draft(engine: Engine, items: Sequence[DraftItem]) -> tuple[list[DraftResult], int]:
    start = time.perf_counter()
    results = draft(engine, items)
    return results, int((time.perf_counter() - start) * 1e6)


def _answer(job: Job, results: Sequence[DraftResult], forward_us: int) -> None:
    assert job.outbox is not None
    assert job.credits is not None
    job.credits.give_back()
    candidates = pb.DraftCandidates(
        step_id=job.step_id, forward_us=forward_us, results=[_result(result) for result in results]
    )
    job.outbox.send(pb.DraftResponse(candidates=candidates))


def _item(item: pb.DraftItem) -> DraftItem:
    return DraftItem(
        item.session_id,
        item.base_length,
        tuple(item.append_token_ids),
        item.step_count,
        max(1, item.width),
        max(1, item.beam),
        convert.sampling_from_proto(item.sampling),
        item.value_min,
    )


def _result(result: DraftResult) -> pb.DraftResult:
    return pb.DraftResult(
        session_id=result.session_id,
        status=convert.status_to_proto(result.status.name),
        cached_length=result.cached_length,
        tree=convert.tree_to_proto(result.tree),
    )
