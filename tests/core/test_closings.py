"""Sessions that end: told to the drafters that were asked of them, and to no others."""

from __future__ import annotations

from collections.abc import Sequence

from cosine.core.fusion import Command, Fusion
from cosine.core.plan import CloseSessions, Cooperation, DraftPlan, Guess, PlanItem
from cosine.core.tree import chain

NOW = 100.0


def fusion(sessions_max: int = 1024) -> Fusion:
    machine = Fusion(sessions_max)
    for drafter in "abc":
        machine.drafter_up(drafter)
    return machine


def plan(round_id: int, **drafters: str) -> DraftPlan:
    """A plan for the sessions that are named, each with its drafters."""
    items = tuple(PlanItem(session, 0, (1, 2), tuple(names), 1) for session, names in drafters.items())
    return DraftPlan(round_id, Cooperation.MERGED, items)


def closings(commands: Sequence[Command]) -> dict[str, tuple[str, ...]]:
    return {command.drafter: command.session_ids for command in commands if isinstance(command, CloseSessions)}


def test_only_drafters_that_were_asked_of_a_session_hear_of_its_end() -> None:
    machine = fusion()
    machine.plan(plan(1, s="ab", t="bc", u="c"), NOW)
    assert closings(machine.close(["s", "t", "unknown"])) == {"a": ("s",), "b": ("s", "t"), "c": ("t",)}
    assert closings(machine.close(["u"])) == {"c": ("u",)}
    assert machine.close(["s", "t", "u"]) == [], "once"


def test_the_end_is_told_behind_all_that_is_cancelled_with_it() -> None:
    machine = fusion()
    machine.plan(plan(1, s="a"), NOW)
    assert [type(command).__name__ for command in machine.close(["s"])] == ["CancelSteps", "Trees", "CloseSessions"]


def test_who_has_answered_is_late_or_was_asked_in_an_earlier_plan_hears_of_it() -> None:
    machine = fusion()
    machine.plan(plan(1, s="ab"), NOW)
    machine.candidates(1, [Guess("s", chain((5,), (0.5,)))], 900, NOW)
    machine.tick(NOW + 1)
    machine.plan(plan(2, s="c"), NOW + 1)
    assert closings(machine.close(["s"])) == {"a": ("s",), "b": ("s",), "c": ("s",)}


def test_drafters_that_drain_or_have_come_back_hear_of_it() -> None:
    machine = fusion()
    machine.plan(plan(1, s="abc"), NOW)
    machine.drafter_draining("a")
    machine.drafter_down("b", NOW)
    machine.drafter_up("b")
    machine.candidates(3, [Guess("s", chain((5,), (0.5,)))], 900, NOW)
    machine.plan(plan(2, s="b"), NOW)
    assert closings(machine.close(["s"])) == {"a": ("s",), "b": ("s",), "c": ("s",)}


def test_a_session_that_had_to_make_room_ends_at_its_drafters_all_the_same() -> None:
    machine = fusion(sessions_max=1)
    machine.plan(plan(1, s="a"), NOW)
    machine.plan(plan(2, t="b"), NOW)
    assert machine.session_count == 1
    assert closings(machine.close(["s"])) == {"a": ("s",)}
