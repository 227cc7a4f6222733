"""Between fusion's messages and the core's values."""

from __future__ import annotations

from enum import Enum
from itertools import chain
from typing import Any, TypeVar

from cosine.core.errors import BadRequest
from cosine.core.plan import Cooperation, DraftedTree, DraftPlan, Guess, PlanItem, Reading, Step
from cosine.core.tree import validate, with_confidences
from cosine.rpc.convert import sampling_from_proto, sampling_to_proto, tree_from_proto, tree_to_proto
from cosine.v1 import drafter_pb2, fusion_pb2, types_pb2

Choice = TypeVar("Choice", bound=Enum)


def plan_from_proto(message: fusion_pb2.DraftPlan, round_id: int) -> DraftPlan:
    """The plan under fusion's own round id, since several schedulers count from one. Raises BadRequest where the plan
    asks for a way of working together that does not exist."""
    return DraftPlan(
        round_id,
        _known(Cooperation, message.cooperation, fusion_pb2.Cooperation),
        tuple(_item(item) for item in message.items),
        max(1, message.fusion_interval),
        message.deadline_ms,
        message.traceparent,
        _known(Reading, message.reading or fusion_pb2.READING_REPLACE, fusion_pb2.Reading),
        message.lookahead,
        not message.raw_confidences,
        message.opinions,
    )


def _known(kind: type[Choice], number: int, names: Any) -> Choice:
    """The value of an enum that a peer sent; `names` is its descriptor on the wire."""
    try:
        return kind(number)
    except ValueError:
        field = kind.__name__.lower()
        known = ", ".join(name for name, value in names.items() if value)
        raise BadRequest(
            field.upper(), f"{field} {number} is none of {known}", {"field": field, "value": str(number)}
        ) from None


def _item(item: fusion_pb2.PlanItem) -> PlanItem:
    return PlanItem(
        item.session_id,
        item.base_length,
        tuple(item.append_token_ids),
        tuple(item.drafters),
        item.depth,
        max(1, item.width),
        max(1, item.beam),
        max(1, item.node_budget),
        item.value_min,
        sampling_from_proto(item.sampling),
    )


def step_to_proto(step: Step, traceparent: str) -> drafter_pb2.DraftRequest:
    """One exchange's request to one drafter, in the trace of its plan."""
    items = [
        drafter_pb2.DraftItem(
            session_id=item.session_id,
            base_length=item.base_length,
            append_token_ids=item.token_ids,
            step_count=item.step_count,
            width=item.width,
            beam=item.beam,
            sampling=sampling_to_proto(item.sampling),
            value_min=min(1.0, item.value_min),
            tree=tree_to_proto(item.tree) if item.tree else None,
            run_ahead=item.run_ahead,
            sibling_min=item.sibling_min,
        )
        for item in step.items
    ]
    return drafter_pb2.DraftRequest(
        step=drafter_pb2.DraftStep(step_id=step.step_id, items=items, traceparent=traceparent)
    )


def guess_from_proto(result: drafter_pb2.DraftResult, vocab_size: int) -> Guess:
    """A drafter's answer for one session. Raises BadRequest where its tree is none, or tells no confidence of a node:
    fusion compares drafters by nothing else."""
    if result.status != types_pb2.ITEM_STATUS_OK:
        return Guess(result.session_id, None, result.status == types_pb2.ITEM_STATUS_CACHE_MISS)
    tree = tree_from_proto(result.tree)
    validate(tree, vocab_size)
    return Guess(result.session_id, with_confidences(tree))


def trees_to_proto(round_id: int, results: tuple[DraftedTree, ...]) -> fusion_pb2.FuseResponse:
    """The trees of a plan, under the scheduler's round id."""
    return fusion_pb2.FuseResponse(
        trees=fusion_pb2.DraftedTrees(round_id=round_id, results=[_drafted(result) for result in results])
    )


def _drafted(result: DraftedTree) -> fusion_pb2.DraftedTree:
    return fusion_pb2.DraftedTree(
        session_id=result.session_id,
        status=types_pb2.ITEM_STATUS_CACHE_MISS if result.missed else types_pb2.ITEM_STATUS_OK,
        base_length=result.base_length,
        tree=tree_to_proto(result.tree),
        exchange_count=result.exchange_count,
        forward_us=result.forward_us,
        kept_depth=result.kept_depth,
        opinions=chain.from_iterable(result.tree.opinions),
    )
