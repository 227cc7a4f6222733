"""Plans for fusion: never more unanswered than it takes, none for nobody, none that says too little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import fusion_pb2
from services.scheduler.fusions import Fusion


class Link:
    """Keeps what is sent."""

    def __init__(self, credits: int) -> None:
        self.peer = Identity("fusion", "f", 1, bounds=Bounds(credits=credits))
        self.sent: list[fusion_pb2.FuseRequest] = []

    def send(self, message: Any) -> bool:
        self.sent.append(fusion_pb2.FuseRequest.FromString(message.SerializeToString()))
        return True

    @property
    def round_ids(self) -> list[int]:
        return [message.plan.round_id for message in self.sent if message.HasField("plan")]


class Clock:
    """Stands still until it is set."""

    now = 5.0

    def __call__(self) -> float:
        return self.now


def started(credits: int) -> tuple[Fusion, Link, Clock]:
    link, clock = Link(credits), Clock()
    return Fusion(cast(Any, link), clock), link, clock


def item(session_id: str, base_length: int, tokens: Sequence[int]) -> fusion_pb2.PlanItem:
    return fusion_pb2.PlanItem(session_id=session_id, base_length=base_length, append_token_ids=tokens)


def plan(round_id: int, *items: fusion_pb2.PlanItem) -> fusion_pb2.DraftPlan:
    return fusion_pb2.DraftPlan(round_id=round_id, deadline_ms=100, items=items or [item(f"s{round_id}", 0, [1])])


def test_plans_beyond_the_credits_wait_for_answers_in_order() -> None:
    fusion, link, _ = started(credits=2)
    for round_id in range(5):
        fusion.plan(plan(round_id))
    assert (link.round_ids, fusion.held_count) == ([0, 1], 3)
    fusion.answered(1)
    assert link.round_ids == [0, 1, 2]
    fusion.answered(7)
    assert link.round_ids == [0, 1, 2]
    fusion.answered(0)
    fusion.answered(2)
    assert (link.round_ids, fusion.held_count) == ([0, 1, 2, 3, 4], 0)


def test_a_fusion_that_names_no_credits_is_sent_one_plan_at_a_time() -> None:
    fusion, link, _ = started(credits=0)
    fusion.plan(plan(1))
    fusion.plan(plan(2))
    assert link.round_ids == [1]


def test_a_plan_that_waited_is_given_what_is_left_of_its_time() -> None:
    fusion, link, clock = started(credits=1)
    fusion.plan(plan(1))
    fusion.plan(plan(2))
    clock.now += 0.04
    fusion.answered(1)
    assert [message.plan.deadline_ms for message in link.sent] == [100, 60]


def test_a_plan_whose_time_is_over_is_not_sent_and_takes_no_credit() -> None:
    fusion, link, clock = started(credits=1)
    fusion.plan(plan(1))
    fusion.plan(plan(2))
    clock.now += 0.08
    fusion.plan(plan(3))
    clock.now += 0.08
    fusion.answered(1)
    assert link.round_ids == [1, 3]


def test_a_session_that_ended_leaves_the_plans_that_wait() -> None:
    fusion, link, _ = started(credits=1)
    fusion.plan(plan(1))
    fusion.plan(plan(2, item("a", 0, [1])))
    fusion.plan(plan(3, item("b", 0, [1]), item("c", 0, [1])))
    fusion.close("a")
    fusion.close("b")
    assert [list(message.close.session_ids) for message in link.sent[1:]] == [["a"], ["b"]]
    fusion.answered(1)
    assert link.round_ids == [1, 3]
    assert [entry.session_id for entry in link.sent[-1].plan.items] == ["c"]


def told(base_length: int, tokens: Sequence[int]) -> tuple[int, list[int]]:
    """What fusion is told of a session that had (3, [4, 5, 6]) waiting when a newer item came."""
    fusion, link, _ = started(credits=1)
    fusion.plan(plan(1))
    fusion.plan(plan(2, item("a", 3, [4, 5, 6])))
    fusion.plan(plan(3, item("a", base_length, tokens)))
    assert fusion.held_count == 1
    fusion.answered(1)
    assert link.round_ids == [1, 3]
    (entry,) = link.sent[-1].plan.items
    return entry.base_length, list(entry.append_token_ids)


def test_a_newer_plan_takes_the_place_of_one_that_waits_and_says_what_that_would_have_said() -> None:
    assert told(6, [7]) == (3, [4, 5, 6, 7])


def test_a_newer_plan_that_goes_back_says_only_what_still_holds() -> None:
    assert told(4, [8]) == (3, [4, 8])
    assert told(3, [8, 9]) == (3, [8, 9])
    assert told(0, [1, 2]) == (0, [1, 2])
