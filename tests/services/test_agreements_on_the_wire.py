"""What the scheduler asks of a verifier and is told by it comes through the messages unchanged."""

from __future__ import annotations

import pytest

from cosine.core import events as ev
from cosine.core.tree import ROOT, TokenTree
from cosine.engine.verifying import Status, Verdict
from services.scheduler import convert
from services.verifier.service import _answer, _parse

TREE = TokenTree((5, 6), (ROOT, 0))


@pytest.mark.parametrize("judge", [False, True])
def test_an_items_wish_for_agreements_reaches_the_verifier(judge: bool) -> None:
    batch = ev.SendBatch("verifier", 3, (ev.BatchItem("s", 0, (1,), TREE, judge=judge),))
    work = _parse(convert.batch_to_proto(batch, ""))
    assert [item.judge for item in work.items] == [judge]  # type: ignore[union-attr]  # a batch is parsed to Work


def test_agreements_reach_the_scheduler() -> None:
    verdict = Verdict("s", Status.OK, (5, 7), (0,), 2, judged_nodes=(0, 1), agreements=(1.0, 0.25))
    came, _ = convert.verdicts_from_proto(_answer(3, [verdict], 9).verdicts)
    assert isinstance(came, ev.VerdictCame)
    assert came.verdict == ev.SessionVerdict("s", (5, 7), (0,), 2, judged_nodes=(0, 1), agreements=(1.0, 0.25))


def test_a_verdict_that_nobody_asked_to_judge_carries_nothing_more() -> None:
    verdict = Verdict("s", Status.OK, (5, 7), (0,), 2)
    message = _answer(3, [verdict], 9).verdicts.verdicts[0]
    assert not message.judged_nodes
    assert not message.agreements
