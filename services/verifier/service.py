"""The verifier's servicer: batches of trees come in, verdicts go out; the desk runs them on the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc

from cosine.engine.base import Engine
from cosine.engine.verifying import Status, Verdict, VerifyItem, cancelled, verify
from cosine.peer.desk import Cancelling, Closing, Codec, Desk, Work
from cosine.rpc import convert, metrics
from cosine.rpc.hello import Identity
from cosine.rpc.streams import accept
from cosine.store.registry import LearnedTime
from cosine.v1 import verifier_pb2 as pb
from cosine.v1.verifier_pb2_grpc import VerifierServiceServicer


class VerifierServicer(VerifierServiceServicer):
    """Serves streams; `desk.work` is the one background task."""

    def __init__(self, engine: Engine, identity: Identity) -> None:
        self._identity = identity
        self.desk: Desk[VerifyItem, Verdict] = Desk(engine, _compute, Codec(_parse, _answer, cancelled), _observe)

    def learned(self) -> tuple[LearnedTime, ...]:
        """Nothing: its schedulers learn what its passes take, messages included, and tell."""
        return ()

    async def Verify(
        self, request_iterator: AsyncIterator[pb.VerifyRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            context,
            self._identity,
            "scheduler",
            pb.VerifyResponse,
            lambda _peer, outbox: self.desk.open_stream(outbox, self._identity.bounds),
        )


def _compute(engine: Engine, items: Sequence[VerifyItem], unwanted: Callable[[str], bool]) -> list[Verdict]:
    """One forward pass; it stops where nobody wants any of it any more."""
    return verify(engine, items, lambda: all(unwanted(item.session_id) for item in items))


def _observe(items: Sequence[VerifyItem], verdicts: Sequence[Verdict], seconds: float) -> None:
    """Counts a run; `seconds` is 0 where its items were dropped before it began. What was not held, or was refused, is
    no row of any pass."""
    of = [(item, verdict.status) for item, verdict in zip(items, verdicts, strict=True)]
    ran = [item for item, status in of if status is Status.OK]
    lost = [item for item, status in of if status is Status.CANCELLED]
    if seconds:
        metrics.VERIFIER_FORWARD_SECONDS.observe(seconds)
        metrics.VERIFIER_STOPPED_NODES.inc(_node_count(lost))
    metrics.VERIFIER_CANCELLED_ROWS.inc(_row_count(lost))
    metrics.VERIFIER_ROWS.inc(_row_count(ran))
    metrics.VERIFIER_COMMITTED.inc(sum(len(verdict.token_ids) for verdict in verdicts))
    metrics.SPEC_DRAFTS.inc(sum(len(item.tree) > 0 for item in ran))
    metrics.SPEC_DRAFT_TOKENS.inc(_node_count(ran))
    metrics.SPEC_ACCEPTED_TOKENS.inc(sum(len(verdict.nodes) for verdict in verdicts))


def _row_count(items: Iterable[VerifyItem]) -> int:
    return sum(len(item.token_ids) + len(item.tree) for item in items)


def _node_count(items: Iterable[VerifyItem]) -> int:
    return sum(len(item.tree) for item in items)


def _parse(message: pb.VerifyRequest) -> Work[VerifyItem] | Closing | Cancelling | None:
    if message.HasField("batch"):
        batch = message.batch
        return Work(batch.batch_id, tuple(_item(item) for item in batch.items), batch.traceparent)
    if message.HasField("cancel"):
        return Cancelling(tuple(message.cancel.work_ids))
    return Closing(tuple(message.close.session_ids)) if message.HasField("close") else None


def _item(item: pb.VerifyItem) -> VerifyItem:
    return VerifyItem(
        item.session_id,
        item.base_length,
        tuple(item.append_token_ids),
        convert.tree_from_proto(item.tree),
        convert.sampling_from_proto(item.sampling),
        item.prompt_length,
        item.prefill_only,
        item.judge,
    )


def _answer(batch_id: int, verdicts: Sequence[Verdict], forward_us: int) -> pb.VerifyResponse:
    batch = pb.VerdictBatch(
        batch_id=batch_id, verdicts=[_verdict(verdict) for verdict in verdicts], forward_us=forward_us
    )
    return pb.VerifyResponse(verdicts=batch)


def _verdict(verdict: Verdict) -> pb.Verdict:
    return pb.Verdict(
        session_id=verdict.session_id,
        status=convert.status_to_proto(verdict.status.name),
        committed_token_ids=verdict.token_ids,
        accepted_nodes=verdict.nodes,
        cached_length=verdict.cached_length,
        logprobs=convert.logprobs_to_proto(verdict.logprobs),
        reason=verdict.reason,
        judged_nodes=verdict.judged_nodes,
        agreements=verdict.agreements,
    )
