"""The drafter's servicer: steps come in, guesses go out; the desk runs them on the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from cosine.engine.base import Engine
from cosine.engine.drafting import DraftItem, DraftResult, draft
from cosine.peer.desk import Closing, Codec, Desk, Work
from cosine.rpc import convert
from cosine.rpc.hello import Identity
from cosine.rpc.metrics import DRAFTER_FORWARD_SECONDS, DRAFTER_TOKENS
from cosine.rpc.streams import accept
from cosine.v1 import drafter_pb2 as pb
from cosine.v1.drafter_pb2_grpc import DrafterServiceServicer


class DrafterServicer(DrafterServiceServicer):
    """Serves streams; `desk.work` is the one background task."""

    def __init__(self, engine: Engine, identity: Identity) -> None:
        self._identity = identity
        self.desk: Desk[DraftItem, DraftResult] = Desk(engine, draft, Codec(_parse, _answer), _observe)

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


def _observe(_items: Sequence[DraftItem], results: Sequence[DraftResult], seconds: float) -> None:
    DRAFTER_FORWARD_SECONDS.observe(seconds)
    DRAFTER_TOKENS.inc(sum(len(result.tree) for result in results))


def _parse(message: pb.DraftRequest) -> Work[DraftItem] | Closing | None:
    if message.HasField("step"):
        step = message.step
        return Work(step.step_id, tuple(_item(item) for item in step.items), step.traceparent)
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
