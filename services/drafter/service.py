"""The drafter's servicer: steps come in, guesses go out; the desk runs them on the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from cosine.core.plan import DraftItem
from cosine.core.running_ahead import Foresight
from cosine.core.timing import LineModel
from cosine.engine.base import Engine
from cosine.engine.drafting import DraftResult, cancelled, draft
from cosine.engine.metered import MeteredEngine
from cosine.engine.running_ahead import RunningAhead
from cosine.engine.verifying import Status
from cosine.peer.desk import Cancelling, Closing, Codec, Desk, Work
from cosine.rpc import convert
from cosine.rpc.hello import Identity
from cosine.rpc.metrics import (
    DRAFTER_AHEAD_HITS,
    DRAFTER_AHEAD_PASSES,
    DRAFTER_CANCELLED_STEPS,
    DRAFTER_FORWARD_SECONDS,
    DRAFTER_TOKENS,
)
from cosine.rpc.streams import accept
from cosine.store.registry import LearnedTime
from cosine.v1 import drafter_pb2 as pb
from cosine.v1.drafter_pb2_grpc import DrafterServiceServicer


class DrafterServicer(DrafterServiceServicer):
    """Serves streams; `desk.work` is the one background task. With `run_ahead` idle time goes into the next steps."""

    def __init__(self, engine: Engine, identity: Identity, run_ahead: bool = False) -> None:
        self._identity = identity
        self._metered = metered = MeteredEngine(
            engine, LineModel.seeded(identity.base_ms or 0.0, identity.row_ms or 0.0)
        )
        codec = Codec(_parse, _answer, cancelled)
        if run_ahead:
            ahead = RunningAhead(metered)
            show_running_ahead(ahead.foresight)
            self.desk: Desk[DraftItem, DraftResult] = Desk(
                ahead.engine,
                lambda _, items, stop: metered.learn_from(lambda: ahead.draft(items, stop)),
                codec,
                _observe,
                ahead.idle,
            )
        else:
            self.desk = Desk(
                metered, lambda _, items, stop: metered.learn_from(lambda: draft(metered, items, stop)), codec, _observe
            )

    def learned(self) -> tuple[LearnedTime, ...]:
        """What its own passes have taken since it measured them; nothing where it did not, or before its first job."""
        if self._identity.base_ms is None or not self._metered.note_count:
            return ()
        its = self._metered.passes
        return (LearnedTime(self._identity.peer_id, its.base_ms, its.slope_ms, its.kilotoken_ms),)

    async def Draft(
        self, request_iterator: AsyncIterator[pb.DraftRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            context,
            self._identity,
            "fusion",
            pb.DraftResponse,
            lambda _peer, outbox: self.desk.open_stream(outbox, self._identity.bounds),
        )


def show_running_ahead(foresight: Foresight) -> None:
    """Shows in the metrics what running ahead costs and saves."""
    DRAFTER_AHEAD_PASSES.set_function(lambda: foresight.pass_count)
    DRAFTER_AHEAD_HITS.set_function(lambda: foresight.skipped_count)


def _observe(items: Sequence[DraftItem], results: Sequence[DraftResult], seconds: float) -> None:
    if seconds:
        DRAFTER_FORWARD_SECONDS.observe(seconds)
    DRAFTER_CANCELLED_STEPS.inc(sum(result.status is Status.CANCELLED for result in results))
    fresh = (len(result.tree) - len(item.tree) for item, result in zip(items, results, strict=True))
    DRAFTER_TOKENS.inc(sum(max(0, count) for count in fresh))


def _parse(message: pb.DraftRequest) -> Work[DraftItem] | Closing | Cancelling | None:
    if message.HasField("step"):
        step = message.step
        return Work(step.step_id, tuple(_item(item) for item in step.items), step.traceparent)
    if message.HasField("cancel"):
        return Cancelling(tuple(message.cancel.work_ids))
    return Closing(tuple(message.close.session_ids)) if message.HasField("close") else None


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
        convert.tree_from_proto(item.tree),
        item.run_ahead,
        item.sibling_min,
    )


def _answer(step_id: int, results: Sequence[DraftResult], forward_us: int) -> pb.DraftResponse:
    candidates = pb.DraftCandidates(
        step_id=step_id, forward_us=forward_us, results=[_result(result) for result in results]
    )
    return pb.DraftResponse(candidates=candidates)


def _result(result: DraftResult) -> pb.DraftResult:
    return pb.DraftResult(
        session_id=result.session_id,
        status=convert.status_to_proto(result.status.name),
        cached_length=result.cached_length,
        tree=convert.tree_to_proto(result.tree),
    )
