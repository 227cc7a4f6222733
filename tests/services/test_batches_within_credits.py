"""Batches for a verifier: never more unanswered than it takes, in order, and every one of them sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from kept_messages import Link

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import fusion_pb2, types_pb2, verifier_pb2
from services.scheduler.service import FusionLinks, SchedulerServicer, VerifierLinks
from services.scheduler.verifiers import Verifier


def started(credits: int) -> tuple[Verifier, Link]:
    link = Link(Identity("verifier", "v", 1, bounds=Bounds(credits=credits)))
    return Verifier(cast(Any, link)), link


def batch(batch_id: int) -> verifier_pb2.VerifyRequest:
    return verifier_pb2.VerifyRequest(batch=verifier_pb2.VerifyBatch(batch_id=batch_id))


def said(link: Link) -> Iterator[str]:
    for message in link.sent:
        if message.HasField("batch"):
            yield f"verify {message.batch.batch_id}"
        elif message.HasField("cancel"):
            yield f"cancel {message.cancel.work_ids[0]}"
        else:
            yield f"close {message.close.session_ids[0]}"


def test_batches_beyond_the_credits_wait_for_answers_in_order() -> None:
    verifier, link = started(credits=2)
    for batch_id in range(1, 5):
        verifier.verify(batch(batch_id))
    assert list(said(link)) == ["verify 1", "verify 2"]
    verifier.answered(2)
    assert list(said(link))[2:] == ["verify 3"]
    verifier.answered(9)
    assert len(link.sent) == 3, "nobody asked for that"
    verifier.answered(1)
    assert list(said(link))[3:] == ["verify 4"]


def test_a_verifier_that_names_no_credits_is_sent_one_batch_at_a_time() -> None:
    verifier, link = started(credits=0)
    verifier.verify(batch(1))
    verifier.verify(batch(2))
    assert list(said(link)) == ["verify 1"]


def test_what_is_taken_back_is_so_at_once_or_as_soon_as_it_is_sent() -> None:
    verifier, link = started(credits=1)
    for batch_id in (1, 2, 3):
        verifier.verify(batch(batch_id))
    verifier.cancel(2)
    verifier.cancel(1)
    assert list(said(link)) == ["verify 1", "cancel 1"]
    verifier.answered(1)
    assert list(said(link))[2:] == ["verify 2", "cancel 2"]
    verifier.answered(2)
    assert list(said(link))[4:] == ["verify 3"]


def test_a_session_is_not_closed_before_a_batch_that_waits() -> None:
    verifier, link = started(credits=1)
    verifier.close("a")
    verifier.verify(batch(1))
    verifier.close("b")
    verifier.verify(batch(2))
    verifier.close("c")
    assert list(said(link)) == ["close a", "verify 1", "close b"]
    verifier.answered(1)
    assert list(said(link))[3:] == ["verify 2", "close c"]


PROMPT = (1, 2, 3)
DRAFT = types_pb2.TokenTree(token_ids=[4, 5], parents=[-1, 0], confidences=[0.9, 0.9], proposers=[1, 1])


class Stage:
    """A scheduler with one streamed request, a fusion that answers every plan and a verifier with so many credits."""

    def __init__(self, credits: int) -> None:
        self.servicer = SchedulerServicer(Identity("scheduler", "s", 3), Scheduler(SchedulerConfig()), cast(Any, None))
        verifier = Identity("verifier", "v", 2, model_id="m", vocab_size=257, bounds=Bounds(credits=credits))
        self.verifier, self.fusion = Link(verifier), Link(Identity("fusion", "f", 4))
        self.to_verifier, self.to_fusion = VerifierLinks(self.servicer), FusionLinks(self.servicer)
        self.to_verifier.on_up(cast(Any, self.verifier), verifier)
        self.to_fusion.on_up(cast(Any, self.fusion), self.fusion.peer)
        self.servicer.drafters_changed("f", (Identity("drafter", "d", 5, model_id="small", vocab_size=257),))
        self.servicer.handle(ev.RequestCame(ev.Admission("a", 1, "g", PROMPT, 3, 100, strategy="pipeinfer")))

    def drafts(self) -> None:
        """Fusion answers its last plan."""
        plan = self.fusion.sent[-1].plan
        trees = [
            fusion_pb2.DraftedTree(
                session_id=item.session_id, base_length=item.base_length + len(item.append_token_ids), tree=DRAFT
            )
            for item in plan.items
        ]
        answer = fusion_pb2.DraftedTrees(round_id=plan.round_id, results=trees)
        self.to_fusion.on_message(cast(Any, self.fusion), fusion_pb2.FuseResponse(trees=answer))

    def judges(self) -> None:
        """The verifier answers its first unanswered batch: what was drafted holds."""
        first = self.verifier.batches[0]
        verdicts = [
            verifier_pb2.Verdict(
                session_id=item.session_id, committed_token_ids=[4], cached_length=item.base_length + 1
            )
            for item in first.items
        ]
        answer = verifier_pb2.VerdictBatch(batch_id=first.batch_id, verdicts=verdicts)
        self.to_verifier.on_message(cast(Any, self.verifier), verifier_pb2.VerifyResponse(verdicts=answer))


async def test_a_scheduler_that_plans_two_batches_ahead_sends_as_many_as_the_verifier_takes() -> None:
    for credits, sent_count in ((64, 2), (1, 1)):
        stage = Stage(credits)
        stage.drafts()
        assert len(stage.servicer._core.seats["v"].batches) == 2
        assert len(stage.verifier.batches) == sent_count
        stage.judges()
        assert len(stage.verifier.batches) == 2
