"""The verifier's servicer: runs one batch after the other on the engine's thread and answers with verdicts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from cosine.engine.base import Engine
from cosine.engine.verifying import Verdict, VerifyItem, verify
from cosine.engine.worker import Worker
from cosine.rpc import convert
from cosine.rpc.hello import Identity
from cosine.rpc.metrics import VERIFIER_COMMITTED, VERIFIER_FORWARD_SECONDS, VERIFIER_ROWS
from cosine.rpc.streams import Credits, Outbox, accept
from cosine.rpc.telemetry import span
from cosine.v1 import verifier_pb2 as pb
from cosine.v1.verifier_pb2_grpc import VerifierServiceServicer


@dataclass(frozen=True, slots=True)
class Job:
    """A batch of one stream, and where its answer goes; or sessions to close, where `outbox` is None."""

    batch_id: int
    items: tuple[VerifyItem, ...]
    outbox: Outbox | None
    credits: Credits | None = None
    closing: tuple[str, ...] = ()
    traceparent: str = ""


class VerifierServicer(VerifierServiceServicer):
    """Serves streams; `work` is its one background task."""

    def __init__(self, engine: Engine, identity: Identity) -> None:
        self._engine = engine
        self._identity = identity
        self._worker = Worker("verifier")
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._sessions: set[str] = set()

    @property
    def load(self) -> int:
        """Sessions that callers have not closed."""
        return len(self._sessions)

    async def Verify(
        self, request_iterator: AsyncIterator[pb.VerifyRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            request_iterator,
            context,
            self._identity,
            "scheduler",
            pb.VerifyResponse,
            lambda _peer, outbox: _Stream(self, outbox, self._identity.bounds.credits),
        )

    def add(self, job: Job) -> None:
        """Queues a job; its stream's credits bound how many."""
        self._jobs.put_nowait(job)

    async def work(self) -> None:
        """Runs jobs for ever, in order."""
        while True:
            job = await self._jobs.get()
            if job.outbox is None:
                self._sessions.difference_update(job.closing)
                await self._worker.run(lambda closing=job.closing: self._engine.close(closing))  # type: ignore[misc]
            else:
                await self._run(job)

    async def _run(self, job: Job) -> None:
        assert job.outbox is not None
        assert job.credits is not None
        self._sessions.update(item.session_id for item in job.items)
        trace = span("verify", job.traceparent)
        verdicts, forward_us = await self._worker.run(lambda: _timed_verify(self._engine, job.items))
        trace.end()
        VERIFIER_FORWARD_SECONDS.observe(forward_us / 1e6)
        VERIFIER_ROWS.inc(sum(len(item.token_ids) + len(item.tree) for item in job.items))
        VERIFIER_COMMITTED.inc(sum(len(verdict.token_ids) for verdict in verdicts))
        job.credits.give_back()
        answer = pb.VerdictBatch(
            batch_id=job.batch_id, verdicts=[_verdict(verdict) for verdict in verdicts], forward_us=forward_us
        )
        job.outbox.send(pb.VerifyResponse(verdicts=answer))


class _Stream:
    """One scheduler. When it goes, its sessions are freed."""

    def __init__(self, servicer: VerifierServicer, outbox: Outbox, credits: int) -> None:
        self._servicer = servicer
        self._outbox = outbox
        self._credits = Credits(credits)
        self._sessions: set[str] = set()

    def on_message(self, message: pb.VerifyRequest) -> None:
        if message.HasField("batch"):
            self._credits.take()
            batch = message.batch
            items = tuple(_item(item) for item in batch.items)
            self._sessions.update(item.session_id for item in items)
            self._servicer.add(Job(batch.batch_id, items, self._outbox, self._credits, traceparent=batch.traceparent))
        elif message.HasField("close"):
            self._close(tuple(message.close.session_ids))

    def on_closed(self) -> None:
        self._close(tuple(self._sessions))

    def _close(self, session_ids: tuple[str, ...]) -> None:
        self._sessions.difference_update(session_ids)
        self._servicer.add(Job(0, (), None, closing=session_ids))


def _timed_verify(engine: Engine, items: Sequence[VerifyItem]) -> tuple[list[Verdict], int]:
    start = time.perf_counter()
    verdicts = verify(engine, items)
    return verdicts, int((time.perf_counter() - start) * 1e6)


def _item(item: pb.VerifyItem) -> VerifyItem:
    return VerifyItem(
        item.session_id,
        item.base_length,
        tuple(item.append_token_ids),
        convert.tree_from_proto(item.tree),
        convert.sampling_from_proto(item.sampling),
        item.prompt_length,
        item.prefill_only,
    )


def _verdict(verdict: Verdict) -> pb.Verdict:
    return pb.Verdict(
        session_id=verdict.session_id,
        status=convert.status_to_proto(verdict.status.name),
        committed_token_ids=verdict.token_ids,
        accepted_nodes=verdict.nodes,
        cached_length=verdict.cached_length,
        logprobs=convert.logprobs_to_proto(verdict.logprobs),
        reason=verdict.reason,
    )
