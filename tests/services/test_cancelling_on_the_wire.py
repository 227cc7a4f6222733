"""Cancelled work on the wire of drafter and verifier: what is asked, what is answered, what is counted."""

from __future__ import annotations

import pytest
from prometheus_client import Counter

from cosine.core.plan import DraftItem
from cosine.core.tree import chain
from cosine.engine.base import EngineLimits
from cosine.engine.drafting import cancelled as cancelled_draft
from cosine.engine.drafting import draft
from cosine.engine.toy import ToyEngine
from cosine.engine.verifying import Status, VerifyItem, cancelled, verify
from cosine.peer.desk import Cancelling
from cosine.rpc import metrics
from cosine.v1 import drafter_pb2, types_pb2, verifier_pb2
from services.drafter import service as drafter
from services.verifier import service as verifier

CANCEL = types_pb2.CancelWork(work_ids=[3, 4])


def count(counter: Counter) -> float:
    (metric,) = counter.collect()
    return float(metric.samples[0].value)


def test_cancelling_reaches_both_workers() -> None:
    assert verifier._parse(verifier_pb2.VerifyRequest(cancel=CANCEL)) == Cancelling((3, 4))
    assert drafter._parse(drafter_pb2.DraftRequest(cancel=CANCEL)) == Cancelling((3, 4))


def test_a_cancelled_item_says_so_and_how_much_is_still_held() -> None:
    (verdict,) = verifier._answer(3, [cancelled(VerifyItem("s", 7, (1,)))], 0).verdicts.verdicts
    assert (verdict.status, verdict.cached_length) == (types_pb2.ITEM_STATUS_CANCELLED, 7)
    assert not verdict.committed_token_ids
    (result,) = drafter._answer(3, [cancelled_draft(DraftItem("s", 7, (1,)))], 0).candidates.results
    assert (result.status, result.cached_length) == (types_pb2.ITEM_STATUS_CANCELLED, 7)


def test_cancelled_rows_are_counted_apart_from_those_that_ran() -> None:
    items = [VerifyItem("a", 0, (1, 2), chain([5, 6, 7])), VerifyItem("b", 0, (1,))]
    engine = ToyEngine("toy:seed=1", "", EngineLimits())
    verdicts = [cancelled(items[0]), *verify(engine, items[1:])]
    before = count(metrics.VERIFIER_CANCELLED_ROWS), count(metrics.VERIFIER_ROWS), count(metrics.SPEC_DRAFT_TOKENS)
    verifier._observe(items, verdicts, 0.01)
    assert count(metrics.VERIFIER_CANCELLED_ROWS) - before[0] == 5
    assert count(metrics.VERIFIER_ROWS) - before[1] == 1
    assert count(metrics.SPEC_DRAFT_TOKENS) == before[2]


@pytest.mark.parametrize(("seconds", "begun"), [(0.01, 3), (0.0, 0)], ids=["stopped between layers", "never begun"])
def test_nodes_of_a_cancelled_pass_are_counted_where_it_had_begun(seconds: float, begun: int) -> None:
    items = [VerifyItem("a", 0, (1, 2), chain([5, 6, 7])), VerifyItem("b", 0, (1,))]
    before = count(metrics.VERIFIER_STOPPED_NODES)
    verifier._observe(items, [cancelled(item) for item in items], seconds)
    assert count(metrics.VERIFIER_STOPPED_NODES) - before == begun


def test_what_was_not_held_or_was_refused_is_no_row_of_a_pass() -> None:
    items = [VerifyItem("a", 9, (1,), chain([5, 6])), VerifyItem("b", 0, (999,), chain([5])), VerifyItem("c", 0, (1,))]
    verdicts = verify(ToyEngine("toy:seed=1", "", EngineLimits()), items)
    assert [verdict.status for verdict in verdicts] == [Status.CACHE_MISS, Status.REFUSED, Status.OK]
    counters = (metrics.VERIFIER_ROWS, metrics.VERIFIER_CANCELLED_ROWS, metrics.SPEC_DRAFTS, metrics.SPEC_DRAFT_TOKENS)
    before = [count(counter) for counter in counters]
    verifier._observe(items, verdicts, 0.01)
    assert [count(counter) - old for counter, old in zip(counters, before, strict=True)] == [1, 0, 0, 0]


def test_cancelled_steps_are_counted_and_only_new_nodes_are_proposals() -> None:
    engine = ToyEngine("toy:seed=1", "", EngineLimits())
    items = [DraftItem("a", 0, (1,), 2, tree=chain([5], [0.5])), DraftItem("b", 0, (1,)), DraftItem("c", 9, (1,))]
    results = [*draft(engine, items[:1]), cancelled_draft(items[1]), *draft(engine, items[2:])]
    assert [result.status for result in results] == [Status.OK, Status.CANCELLED, Status.CACHE_MISS]
    before = count(metrics.DRAFTER_CANCELLED_STEPS), count(metrics.DRAFTER_TOKENS)
    drafter._observe(items, results, 0.01)
    assert count(metrics.DRAFTER_CANCELLED_STEPS) - before[0] == 1
    assert count(metrics.DRAFTER_TOKENS) - before[1] == 2
