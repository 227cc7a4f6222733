"""Trees are looked at before the machine sees them: a bad one costs fusion its link, and no request anything."""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import pytest
from kept_messages import Link

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest
from cosine.core.scheduler import Scheduler
from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import fusion_pb2, scheduler_pb2, types_pb2, verifier_pb2
from services.scheduler import convert
from services.scheduler.service import FusionLinks, SchedulerServicer, VerifierLinks

VOCAB = 257
PROMPT = (1, 2, 3)
COUNT = 12
MESSAGES_MAX = 200
SOUND: dict[str, list[float]] = {
    "token_ids": [4, 9],
    "parents": [-1, 0],
    "confidences": [0.9, 0.8],
    "proposers": [1, 1],
}
BAD: dict[str, tuple[dict[str, list[float]], str]] = {
    "no parent": ({"parents": [-1]}, "TREE_MALFORMED"),
    "a parent behind its child": ({"parents": [1, -1]}, "TREE_MALFORMED"),
    "a parent before the root": ({"parents": [-2, -1]}, "TREE_MALFORMED"),
    "no confidences": ({"confidences": []}, "TREE_MALFORMED"),
    "no proposers": ({"proposers": []}, "TREE_MALFORMED"),
    "a confidence too many": ({"confidences": [0.9, 0.8, 0.7]}, "TREE_MALFORMED"),
    "a token outside the vocabulary": ({"token_ids": [4, VOCAB]}, "TOKEN_OUT_OF_RANGE"),
    "a confidence that is no number": ({"confidences": [math.nan, 0.8]}, "CONFIDENCE"),
    "a confidence above one": ({"confidences": [0.9, 1.01]}, "CONFIDENCE"),
    "a confidence below zero": ({"confidences": [-0.1, 0.8]}, "CONFIDENCE"),
}
CASES = pytest.mark.parametrize(("wrong", "reason"), BAD.values(), ids=BAD.keys())


def tree(**wrong: Any) -> types_pb2.TokenTree:
    return types_pb2.TokenTree(**{**cast(dict[str, Any], SOUND), **wrong})


def trees(sent: types_pb2.TokenTree) -> fusion_pb2.DraftedTrees:
    return fusion_pb2.DraftedTrees(round_id=3, results=[fusion_pb2.DraftedTree(session_id="s", tree=sent)])


@CASES
def test_a_tree_that_is_none_is_refused_by_name(wrong: dict[str, list[float]], reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        convert.trees_from_proto(trees(tree(**wrong)), VOCAB)
    assert refused.value.reason == reason


def test_a_confidence_that_rounding_took_above_one_is_one() -> None:
    came, _ = convert.trees_from_proto(trees(tree(confidences=[1.000005, 0.5])), VOCAB)
    assert isinstance(came, ev.TreeCame)
    assert came.tree.tree.confidences == (1.0, 0.5)


def pick(position: int) -> int:
    """What the target says at a position."""
    return 100 + position


class Clock:
    """Stands still until it is set."""

    now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The event loop's."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


class Stage:
    """A scheduler between a gateway, a verifier and a fusion that are objects. `wrong` is in every tree."""

    def __init__(self, clock: Clock, **wrong: Any) -> None:
        self.clock = clock
        self.tree = tree(**wrong)
        self.losses: list[str] = []
        self.answered_batches = 0
        self.servicer = SchedulerServicer(Identity("scheduler", "s", 3), Scheduler(SchedulerConfig()), cast(Any, None))
        self.gateway = Link(Identity("gateway", "g", 1, model_id="m", vocab_size=VOCAB))
        self.verifier = Link(Identity("verifier", "v", 2, model_id="m", vocab_size=VOCAB, bounds=Bounds(credits=64)))
        self.to_verifier, self.to_fusion = VerifierLinks(self.servicer), FusionLinks(self.servicer)
        self.servicer.attach(self.gateway.peer, cast(Any, self.gateway))
        self.to_verifier.on_up(cast(Any, self.verifier), self.verifier.peer)
        self.fusion_comes()

    def fusion_comes(self) -> None:
        self.fusion = Link(Identity("fusion", "f", 4, bounds=Bounds(credits=64)))
        self.answered_plans = 0
        self.to_fusion.on_up(cast(Any, self.fusion), self.fusion.peer)
        drafter = fusion_pb2.DrafterEntry(peer_id="d", model_id="small", vocab_size=VOCAB)
        names = fusion_pb2.DrafterList(drafters=[drafter])
        self.to_fusion.on_message(cast(Any, self.fusion), fusion_pb2.FuseResponse(drafters=names))

    def ask(self, name: str) -> None:
        admission = ev.Admission(name, 1, "g", PROMPT, len(PROMPT), COUNT, strategy="specinfer")
        self.servicer.handle(ev.RequestCame(admission))

    def run(self) -> None:
        """Goes on until all requests have ended."""
        for _ in range(MESSAGES_MAX):
            if not self.servicer.load:
                return
            self.step()
        raise AssertionError("it never comes to rest")

    def step(self) -> None:
        """Answers a plan, else a batch; where there is none, time passes."""
        plans = [message.plan for message in self.fusion.sent if message.HasField("plan")]
        if len(plans) > self.answered_plans:
            self.answered_plans += 1
            self.draft(plans[self.answered_plans - 1])
        elif len(self.verifier.batches) > self.answered_batches:
            self.answered_batches += 1
            self._judge(self.verifier.batches[self.answered_batches - 1])
        else:
            self._sleep()

    def draft(self, plan: fusion_pb2.DraftPlan) -> None:
        """Fusion answers a plan. A link does the same with what its owner refuses: it falls, and stands again."""
        results = [
            fusion_pb2.DraftedTree(
                session_id=item.session_id, base_length=item.base_length + len(item.append_token_ids), tree=self.tree
            )
            for item in plan.items
        ]
        answer = fusion_pb2.DraftedTrees(round_id=plan.round_id, results=results)
        try:
            self.to_fusion.on_message(cast(Any, self.fusion), fusion_pb2.FuseResponse(trees=answer))
        except BadRequest as error:
            self.losses.append(error.reason)
            self.to_fusion.on_down(cast(Any, self.fusion), error.message)
            self.fusion_comes()

    def _sleep(self) -> None:
        timer = self.servicer._timer
        assert timer is not None, "nothing is under way"
        self.clock.now = max(self.clock.now, timer.when())
        self.servicer.handle(ev.Tick())

    def _judge(self, batch: verifier_pb2.VerifyBatch) -> None:
        """Nothing that was drafted is right; an id that the target does not know is refused."""
        verdicts = []
        for item in batch.items:
            length = item.base_length + len(item.append_token_ids)
            known = all(token < VOCAB for token in item.tree.token_ids)
            verdicts.append(
                verifier_pb2.Verdict(
                    session_id=item.session_id,
                    status=types_pb2.ITEM_STATUS_OK,
                    committed_token_ids=[pick(length)] if known else [],
                    cached_length=length,
                    reason="" if known else "token ids must lie in 0..256",
                )
            )
        answer = verifier_pb2.VerdictBatch(batch_id=batch.batch_id, verdicts=verdicts)
        self.to_verifier.on_message(cast(Any, self.verifier), verifier_pb2.VerifyResponse(verdicts=answer))

    def text(self, name: str) -> tuple[list[int], int]:
        """What the gateway was told of a request, and how it ended."""
        messages: list[scheduler_pb2.AttachResponse] = self.gateway.sent
        told = [message.progress for message in messages if message.progress.request_id == name]
        return [token for progress in told for token in progress.token_ids], told[-1].finish_reason


@CASES
async def test_a_bad_tree_costs_fusion_its_link_and_requests_nothing(
    clock: Clock, wrong: dict[str, list[float]], reason: str
) -> None:
    stage = Stage(clock, **wrong)
    stage.ask("a")
    stage.ask("b")
    stage.run()
    whole = [pick(len(PROMPT) + index) for index in range(COUNT)], types_pb2.FINISH_REASON_LENGTH
    assert (stage.text("a"), stage.text("b")) == (whole, whole)
    assert set(stage.losses) == {reason}
    assert not any(item.tree.token_ids for batch in stage.verifier.batches for item in batch.items)
    stage.tree = tree()
    loss_count = len(stage.losses)
    stage.ask("c")
    stage.run()
    assert stage.text("c") == whole
    assert len(stage.losses) == loss_count
    assert any(item.tree.token_ids for batch in stage.verifier.batches for item in batch.items), "it is heard again"


async def test_a_sound_tree_that_comes_while_no_verifier_is_there_is_no_offence(clock: Clock) -> None:
    stage = Stage(clock)
    stage.ask("a")
    while not (plans := [message.plan for message in stage.fusion.sent if message.HasField("plan")]):
        stage.step()
    stage.to_verifier.on_down(cast(Any, stage.verifier), "gone")
    stage.draft(plans[0])
    assert stage.losses == []
