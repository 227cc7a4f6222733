"""Between the scheduler's messages and the core's events and commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from cosine.core import events as ev
from cosine.core.errors import BadRequest
from cosine.core.plan import DraftedTree
from cosine.core.tree import CONFIDENCE_MAX, TokenTree, validate, with_confidences
from cosine.rpc.convert import sampling_from_proto, sampling_to_proto, tree_from_proto, tree_to_proto
from cosine.rpc.errors import to_failure
from cosine.rpc.hello import Identity
from cosine.v1 import fusion_pb2, scheduler_pb2, types_pb2, verifier_pb2

FINISH = {
    "": types_pb2.FINISH_REASON_UNSPECIFIED,
    "stop_token": types_pb2.FINISH_REASON_STOP_TOKEN,
    "length": types_pb2.FINISH_REASON_LENGTH,
}
# Of one message to a gateway that has grown while it waited: with logprobs far below the bound on a message's bytes.
JOINED_TOKENS_MAX = 4096


def admission_from_proto(message: scheduler_pb2.AdmittedRequest, clock_offset: float) -> ev.Admission:
    """`clock_offset` is this process's clock minus unix time, in seconds."""
    deadline = message.deadline_unix_ms / 1000 + clock_offset if message.deadline_unix_ms else 0.0
    return ev.Admission(
        message.request_id,
        message.attempt,
        message.gateway_id,
        tuple(message.token_ids),
        message.prompt_length,
        message.max_new_tokens,
        sampling_from_proto(message.sampling),
        frozenset(message.stop_token_ids),
        message.strategy,
        deadline,
        message.traceparent,
        message.priority,
    )


def verifier_facts(peer: Identity, batch_rows_max: int) -> ev.VerifierFacts:
    """A verifier as the core plans with it. A batch has at most `batch_rows_max` sessions; of a verifier that takes
    fewer in one message, only so many places are used."""
    bounds = peer.bounds
    few = bounds.batch_max < batch_rows_max
    return ev.VerifierFacts(
        peer.peer_id,
        max(1, min(bounds.sessions_max, bounds.batch_max)) if few else bounds.sessions_max,
        bounds.tree_nodes_max,
        bounds.tokens_max,
        peer.base_ms or 0.0,
        peer.row_ms or 0.0,
        peer.processor,
    )


def plan_to_proto(command: ev.SendPlan, traceparent: str) -> fusion_pb2.DraftPlan:
    """A plan for fusion."""
    plan = command.plan
    items = [
        fusion_pb2.PlanItem(
            session_id=item.session_id,
            base_length=item.base_length,
            append_token_ids=item.token_ids,
            drafters=item.drafters,
            depth=item.depth,
            width=item.width,
            beam=item.beam,
            node_budget=item.node_budget,
            value_min=item.value_min,
            sampling=sampling_to_proto(item.sampling),
        )
        for item in plan.items
    ]
    return fusion_pb2.DraftPlan(
        round_id=plan.round_id,
        cooperation=f"COOPERATION_{plan.cooperation.name}",
        fusion_interval=plan.fusion_interval,
        deadline_ms=int(plan.deadline_ms),
        traceparent=traceparent,
        items=items,
        reading=f"READING_{plan.reading.name}",
        lookahead=plan.lookahead,
        raw_confidences=not plan.calibrated,
        opinions=plan.opinions,
    )


def trees_from_proto(message: fusion_pb2.DraftedTrees, vocab_size: int) -> list[ev.Event]:
    """The trees of a plan for a target of `vocab_size` tokens. Raises BadRequest where one is none, does not tell of
    every node how sure who was of it, or comes with opinions that are not its proposers'."""
    return [
        *(ev.TreeCame(message.round_id, _tree(result, vocab_size)) for result in message.results),
        ev.PlanDone(message.round_id),
    ]


def _tree(result: fusion_pb2.DraftedTree, vocab_size: int) -> DraftedTree:
    tree = tree_from_proto(result.tree)
    validate(tree, vocab_size)
    tree = with_confidences(tree)
    if len(tree.proposers) != len(tree):
        raise BadRequest("TREE_MALFORMED", "every node needs its proposers")
    return DraftedTree(
        result.session_id,
        result.base_length,
        replace(tree, opinions=_opinions(tree, result.opinions)) if result.opinions else tree,
        result.status == types_pb2.ITEM_STATUS_CACHE_MISS,
        result.exchange_count,
        result.forward_us,
        result.kept_depth,
    )


def _opinions(tree: TokenTree, said: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """What every node's proposers said of it, in the order of their bits. Raises BadRequest."""
    counts = [bits.bit_count() for bits in tree.proposers]
    if len(said) != sum(counts):
        named = {"field": "opinions", "value": str(len(said)), "allowed": str(sum(counts))}
        raise BadRequest("TREE_MALFORMED", "a tree needs one opinion per proposer of each node", named)
    if not all(0.0 <= opinion <= CONFIDENCE_MAX for opinion in said):
        raise BadRequest("CONFIDENCE", "every opinion must lie in 0..1", {"field": "opinions"})
    rest = iter(said)
    return tuple(tuple(islice(rest, count)) for count in counts)


def batch_to_proto(command: ev.SendBatch, traceparent: str) -> verifier_pb2.VerifyRequest:
    """A batch for a verifier."""
    items = [
        verifier_pb2.VerifyItem(
            session_id=item.session_id,
            base_length=item.base_length,
            append_token_ids=item.token_ids,
            tree=tree_to_proto(item.tree, figures=False) if item.tree else None,
            sampling=sampling_to_proto(item.sampling),
            prompt_length=item.prompt_length,
            prefill_only=item.prefill_only,
            judge=item.judge,
        )
        for item in command.items
    ]
    return verifier_pb2.VerifyRequest(
        batch=verifier_pb2.VerifyBatch(batch_id=command.batch_id, items=items, traceparent=traceparent)
    )


def verdicts_from_proto(message: verifier_pb2.VerdictBatch) -> list[ev.Event]:
    """The verdicts of a batch."""
    batch_id, forward_us = message.batch_id, message.forward_us
    verdicts = (ev.VerdictCame(batch_id, _verdict(verdict), forward_us) for verdict in message.verdicts)
    return [*verdicts, ev.BatchDone(batch_id)]


def _verdict(verdict: verifier_pb2.Verdict) -> ev.SessionVerdict:
    return ev.SessionVerdict(
        verdict.session_id,
        tuple(verdict.committed_token_ids),
        tuple(verdict.accepted_nodes),
        verdict.cached_length,
        tuple((entry.logprob, tuple(entry.top_token_ids), tuple(entry.top_logprobs)) for entry in verdict.logprobs),
        verdict.status == types_pb2.ITEM_STATUS_CACHE_MISS,
        verdict.reason,
        tuple(verdict.judged_nodes),
        tuple(verdict.agreements),
    )


def progress_to_proto(command: ev.Progress) -> scheduler_pb2.AttachResponse:
    """Tokens or the end of a request, for its gateway."""
    progress = scheduler_pb2.RequestProgress(
        request_id=command.request_id,
        attempt=command.attempt,
        offset=command.offset,
        token_ids=command.token_ids,
        logprobs=[
            types_pb2.TokenLogprobs(logprob=own, top_token_ids=ids, top_logprobs=values)
            for own, ids, values in command.logprobs
        ],
        finish_reason=FINISH[command.finish],
        figures=None if command.figures is None else figures_to_proto(command.figures),
        error=None if command.error is None else to_failure(command.error),
    )
    return scheduler_pb2.AttachResponse(progress=progress)


def progress_key(message: scheduler_pb2.AttachResponse) -> tuple[str, int]:
    """The request and attempt that a message for a gateway is about."""
    return message.progress.request_id, message.progress.attempt


def join_progress(waiting: scheduler_pb2.AttachResponse, later: scheduler_pb2.AttachResponse) -> bool:
    """Adds to progress that waits what the same request did next; False where that is not what comes next. The first
    message, which has no tokens, stays as it is, and so does one that says a lot already."""
    told, more = waiting.progress, later.progress
    has_ended = told.finish_reason != types_pb2.FINISH_REASON_UNSPECIFIED or told.HasField("error")
    told_count = len(told.token_ids)
    if has_ended or not 0 < told_count < JOINED_TOKENS_MAX or told.offset + told_count != more.offset:
        return False
    if more.HasField("figures"):
        told.ClearField("figures")
    offset = told.offset
    told.MergeFrom(more)
    told.offset = offset
    return True


def figures_to_proto(figures: ev.Figures) -> types_pb2.SpeculationFigures:
    """What speculation did for a request."""
    return types_pb2.SpeculationFigures(
        round_count=figures.round_count,
        drafted_token_count=figures.drafted_token_count,
        accepted_token_count=figures.accepted_token_count,
        drafters=figures.drafters,
        draft_us=figures.draft_us,
        verify_us=figures.verify_us,
        drafter_forward_us=figures.drafter_forward_us,
        exchange_count=figures.exchange_count,
        strategy=figures.strategy,
        round_us=figures.round_us,
        prefill_us=figures.prefill_us,
    )
