"""A session's end as drafters hear of it: those that were asked, and never before a step that would open it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from kept_messages import Link

from cosine.core.plan import DraftItem, Step
from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import drafter_pb2, fusion_pb2
from services.fusion.convert import step_to_proto
from services.fusion.drafters import WAITING_MAX, Drafter
from services.fusion.service import FusionServicer, _Stream


def link(name: str, credits: int = 1) -> Link:
    return Link(Identity("drafter", name, 1, vocab_size=257, bounds=Bounds(credits=credits)))


def started() -> tuple[Drafter, Link]:
    """A drafter of one credit that owes the answer to step 1."""
    to_drafter = link("d")
    drafter = Drafter(cast(Any, to_drafter), lambda step: step_to_proto(step, ""))
    drafter.ask(step(1, "x"))
    return drafter, to_drafter


def step(step_id: int, sessions: Iterable[str]) -> Step:
    """A step of a round of its own."""
    return Step("d", step_id, tuple(DraftItem(session, 0, (1, 2)) for session in sessions), round_id=step_id)


def said(to_drafter: Link) -> Iterator[str]:
    messages: list[drafter_pb2.DraftRequest] = to_drafter.sent
    for message in messages:
        if message.HasField("step"):
            yield f"step {''.join(item.session_id for item in message.step.items)}"
        elif message.HasField("close"):
            yield f"close {''.join(message.close.session_ids)}"
        else:
            yield f"cancel {message.cancel.work_ids}"


def test_a_session_ends_behind_the_last_step_that_waits_and_names_it() -> None:
    drafter, to_drafter = started()
    drafter.ask(step(2, "ab"))
    drafter.ask(step(3, "bc"))
    drafter.close(["x", "a", "b"])
    assert list(said(to_drafter)) == ["step x", "close x"]
    drafter.answered(1)
    assert list(said(to_drafter))[2:] == ["step ab", "close a"]
    drafter.answered(2)
    assert list(said(to_drafter))[4:] == ["step bc", "close b"]
    drafter.answered(3)
    assert len(to_drafter.sent) == 6, "once"


def test_a_session_ends_as_soon_as_no_step_that_names_it_waits_any_more() -> None:
    for forget in (lambda drafter: drafter.cancel([2]), lambda drafter: drafter.end_round(2)):
        drafter, to_drafter = started()
        drafter.ask(step(2, "a"))
        drafter.close(["a"])
        assert list(said(to_drafter)) == ["step x"]
        forget(drafter)
        assert list(said(to_drafter)) == ["step x", "close a"]


def test_a_session_whose_step_had_to_make_room_ends() -> None:
    drafter, to_drafter = started()
    drafter.ask(step(2, "a"))
    drafter.close(["a"])
    for step_id in range(3, 3 + WAITING_MAX):
        drafter.ask(step(step_id, "b"))
    assert list(said(to_drafter)) == ["step x", "close a"]


def test_a_session_that_is_asked_for_again_has_not_ended() -> None:
    drafter, to_drafter = started()
    drafter.ask(step(2, "a"))
    drafter.close(["a"])
    drafter.ask(step(3, "a"))
    drafter.answered(1)
    drafter.answered(2)
    drafter.answered(3)
    assert list(said(to_drafter)) == ["step x", "step a", "step a"]


class Mesh:
    """Fusion between a scheduler and drafters that are objects."""

    def __init__(self, *names: str) -> None:
        self.servicer = FusionServicer(Identity("fusion", "f", 2), sessions_max=8)
        self.drafters: dict[str, Link] = {}
        for name in names:
            self.comes(name)
        self.scheduler = _Stream(self.servicer, cast(Any, Link(Identity("scheduler", "s", 3))), credits=8)

    def comes(self, name: str) -> None:
        """A drafter comes, or comes back: by then it has ended all sessions of its last stream."""
        if name in self.drafters:
            self.servicer.on_down(cast(Any, self.drafters[name]), "gone")
        self.drafters[name] = link(name, credits=8)
        self.servicer.on_up(cast(Any, self.drafters[name]), self.drafters[name].peer)

    def plan(self, round_id: int, session: str, drafters: str) -> None:
        item = fusion_pb2.PlanItem(session_id=session, append_token_ids=[1, 2], drafters=drafters, depth=1)
        plan = fusion_pb2.DraftPlan(round_id=round_id, cooperation="COOPERATION_MERGED", items=[item], deadline_ms=1000)
        self.scheduler.on_message(fusion_pb2.FuseRequest(plan=plan))

    def closings(self) -> dict[str, list[str]]:
        """What each drafter was told to close."""
        return {name: [text for text in said(to) if "close" in text] for name, to in self.drafters.items()}


async def test_nobody_hears_of_the_end_of_a_session_that_was_never_asked_of_it() -> None:
    mesh = Mesh(*"abc")
    mesh.plan(1, "s", "ab")
    mesh.plan(2, "t", "b")
    mesh.scheduler.on_message(fusion_pb2.FuseRequest(close={"session_ids": ["s"]}))
    assert mesh.closings() == {"a": ["close s"], "b": ["close s"], "c": []}
    mesh.scheduler.on_closed()
    assert mesh.closings() == {"a": ["close s"], "b": ["close s", "close t"], "c": []}


async def test_a_drafter_that_came_back_hears_of_the_end_of_what_it_was_asked_since() -> None:
    mesh = Mesh(*"ab")
    mesh.plan(1, "s", "ab")
    mesh.comes("a")
    mesh.plan(2, "s", "ab")
    mesh.scheduler.on_message(fusion_pb2.FuseRequest(close={"session_ids": ["s"]}))
    assert mesh.closings() == {"a": ["close s"], "b": ["close s"]}
