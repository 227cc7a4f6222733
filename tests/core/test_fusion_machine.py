"""The fusion machine, told as traces: what goes out, what comes back, what is asked next, which tree comes out.

A step reads `DRAFTER#ID SESSION BASE+[tokens] xSTEPS`, a tree `SESSION@BASE path:confidence%proposers ...`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from harness import paths

from cosine.core.fusion import MISSES_MAX, REST_S, Command, Fusion, Guess, Step, Trees
from cosine.core.plan import CancelSteps, CloseSessions, Cooperation, DraftedTree, DraftPlan, PlanItem
from cosine.core.tree import TokenTree, chain, merge

NOW = 100.0
FUSED, MERGED, SINGLE = Cooperation.FUSED, Cooperation.MERGED, Cooperation.SINGLE


def fusion(*drafters: str, sessions_max: int = 1024) -> Fusion:
    machine = Fusion(sessions_max)
    for drafter in drafters:
        machine.drafter_up(drafter)
    return machine


def item(session: str = "s", base: int = 0, tokens: Sequence[int] = (1, 2), depth: int = 3, **more: object) -> PlanItem:
    drafters = more.pop("drafters", ("a", "b"))
    return PlanItem(session, base, tuple(tokens), drafters, depth, **more)  # type: ignore[arg-type]  # a dict of keywords has one type of values


def plan(cooperation: Cooperation, *items: PlanItem, round_id: int = 1, interval: int = 1) -> DraftPlan:
    return DraftPlan(round_id, cooperation, items, interval, deadline_ms=200.0)


def guess(*tokens: int, confidence: float = 0.5, session: str = "s") -> Guess:
    """A guess of one path, every token of the same confidence."""
    return Guess(session, chain(tokens, [confidence] * len(tokens)))


def siblings(*tokens: int, confidences: Sequence[float], session: str = "s") -> Guess:
    """A guess of several candidates for one place."""
    return Guess(session, TokenTree(tokens, (-1,) * len(tokens), tuple(confidences), (1,) * len(tokens)))


def told(commands: Sequence[Command]) -> str:
    """Commands as text."""
    lines = []
    for command in commands:
        if isinstance(command, Step):
            its = ", ".join(
                f"{part.session_id} {part.base_length}+{list(part.token_ids)} x{part.step_count}"
                for part in command.items
            )
            lines.append(f"{command.drafter}#{command.step_id} {its}")
        elif isinstance(command, CancelSteps):
            lines.append(f"{command.drafter} drops {list(command.step_ids)}")
        elif isinstance(command, CloseSessions):
            lines.append(f"{command.drafter} closes {' '.join(command.session_ids)}")
        else:
            lines += [drawn(tree) for tree in command.results] or ["nothing"]
    return "\n".join(lines)


def drawn(result: DraftedTree) -> str:
    if result.missed:
        return f"{result.session_id}@{result.base_length} missed"
    tree = result.tree
    nodes = [
        f"{'.'.join(map(str, path))}:{100 * tree.confidences[node]:.0f}%{tree.proposers[node]:b}"
        for path, node in sorted(paths(tree).items())
    ]
    return " ".join([f"{result.session_id}@{result.base_length}", *nodes])


def trees_of(commands: Sequence[Command]) -> tuple[DraftedTree, ...]:
    (trees,) = commands
    assert isinstance(trees, Trees)
    return trees.results


def test_single_asks_each_sessions_own_drafter_once_for_the_whole_depth() -> None:
    machine = fusion("a", "b")
    asked = machine.plan(plan(SINGLE, item("s", drafters=("a",)), item("t", drafters=("b",))), NOW)
    assert told(asked) == "a#1 s 0+[1, 2] x3\nb#2 t 0+[1, 2] x3"
    assert machine.candidates(1, [guess(5, 6, 7)], 900, NOW) == []
    done = machine.candidates(2, [guess(8, session="t")], 900, NOW)
    assert told(done) == "s@2 5:50%1 5.6:50%1 5.6.7:50%1\nt@2 8:50%1", "it is not asked for the rest of the depth"


def test_merged_lets_drafters_run_alone_and_joins_their_paths() -> None:
    machine = fusion("a", "b")
    asked = machine.plan(plan(MERGED, item()), NOW)
    assert told(asked) == "a#1 s 0+[1, 2] x3\nb#2 s 0+[1, 2] x3"
    assert machine.candidates(2, [guess(5, 9, confidence=0.4)], 900, NOW) == []
    done = machine.candidates(1, [guess(5, 6, confidence=0.6)], 900, NOW)
    assert told(done) == "s@2 5:60%11 5.6:60%1 5.9:40%10"


def test_fused_extends_the_backbone_by_the_most_confident_token_and_all_go_on_from_there() -> None:
    machine = fusion("a", "b")
    assert told(machine.plan(plan(FUSED, item()), NOW)) == "a#1 s 0+[1, 2] x1\nb#2 s 0+[1, 2] x1"
    assert machine.candidates(1, [siblings(5, 6, confidences=[0.5, 0.2])], 900, NOW) == []
    second = machine.candidates(2, [siblings(7, 5, confidences=[0.8, 0.1])], 900, NOW)
    assert told(second) == "a#3 s 2+[7] x1\nb#4 s 2+[7] x1", "the token of b replaced that of a"
    machine.candidates(3, [guess(8, confidence=0.9)], 900, NOW)
    third = machine.candidates(4, [guess(9, confidence=0.6)], 900, NOW)
    assert told(third) == "a#5 s 3+[8] x1\nb#6 s 3+[8] x1"
    machine.candidates(5, [guess(4, confidence=0.3)], 900, NOW)
    done = machine.candidates(6, [guess(4, confidence=0.2)], 900, NOW)
    assert told(done) == "s@2 5:50%11 6:20%1 7:80%10 7.8:90%1 7.8.4:30%11 7.9:60%10"


def test_fused_with_an_interval_lets_drafters_run_on_and_takes_the_best_path() -> None:
    machine = fusion("a", "b")
    assert told(machine.plan(plan(FUSED, item(), interval=2), NOW)) == "a#1 s 0+[1, 2] x2\nb#2 s 0+[1, 2] x2"
    machine.candidates(1, [guess(5, 6, confidence=0.5)], 900, NOW)
    second = machine.candidates(2, [guess(7, 8, confidence=0.7)], 900, NOW)
    assert told(second) == "a#3 s 2+[7, 8] x1\nb#4 s 2+[7, 8] x1", "one token is left of the depth"
    machine.candidates(3, [guess(9)], 900, NOW)
    done = machine.candidates(4, [guess(9)], 900, NOW)
    assert told(done) == "s@2 5:50%1 5.6:50%1 7:70%10 7.8:70%10 7.8.9:50%11"


def test_the_sessions_of_a_plan_are_stepped_together() -> None:
    machine = fusion("a", "b")
    asked = machine.plan(plan(SINGLE, item("s"), item("t", tokens=(3,), depth=2), item("u", drafters=("b",))), NOW)
    assert told(asked) == "a#1 s 0+[1, 2] x3, t 0+[3] x2\nb#2 s 0+[1, 2] x3, t 0+[3] x2, u 0+[1, 2] x3"


def test_what_a_drafter_holds_is_not_sent_again() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",))), NOW)
    machine.candidates(1, [guess(5, 6)], 900, NOW)
    again = machine.plan(plan(SINGLE, item(base=2, tokens=(5, 9), drafters=("a",)), round_id=2), NOW)
    assert told(again) == "a#2 s 2+[5, 9] x3"


def test_a_backbone_that_the_target_left_is_rolled_back() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item(drafters=("a",))), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    machine.candidates(2, [guess(6)], 900, NOW)
    machine.candidates(3, [guess(7)], 900, NOW)
    agreed = machine.plan(plan(FUSED, item(base=2, tokens=(5, 9), drafters=("a",)), round_id=2), NOW)
    assert told(agreed) == "a#4 s 3+[9] x1", "5 was on the backbone, 6 was not committed"


def test_what_a_drafter_holds_beyond_the_tokens_of_the_target_is_sent_again() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item(drafters=("a",))), NOW)
    for step_id, token in ((1, 5), (2, 6), (3, 7)):
        machine.candidates(step_id, [guess(token)], 900, NOW)
    diverged = machine.plan(plan(FUSED, item(base=2, tokens=(8, 9), drafters=("a",)), round_id=2), NOW)
    assert told(diverged) == "a#4 s 2+[8, 9] x1", "it holds [1, 2, 5, 6], of which the target said 1 and 2"
    machine.candidates(4, [guess(4)], 900, NOW)
    agreed = machine.plan(plan(FUSED, item(base=4, tokens=(4, 3), drafters=("a",)), round_id=3), NOW)
    assert "4+[4, 3]" in told(agreed), "what both said is not sent again"


def test_a_drafter_that_lost_its_cache_is_sent_the_whole_context() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",))), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    machine.plan(plan(SINGLE, item(base=2, tokens=(5, 6), drafters=("a",)), round_id=2), NOW)
    retry = machine.candidates(2, [Guess("s", None, missed=True)], 900, NOW)
    assert told(retry) == "a#3 s 0+[1, 2, 5, 6] x3"
    assert told(machine.candidates(3, [guess(7)], 900, NOW)).startswith("s@4 7:")


def test_a_drafter_that_misses_a_whole_context_is_not_asked_for_ever() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",))), NOW)
    assert told(machine.candidates(1, [Guess("s", None, missed=True)], 900, NOW)) == "s@2"


def test_a_miss_of_one_session_lets_the_others_go_on() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item("s", drafters=("a",)), item("t", drafters=("a",))), NOW)
    machine.candidates(1, [guess(5, session="s"), guess(6, session="t")], 900, NOW)
    both = (item("s", 2, (5,), drafters=("a",)), item("t", 2, (6,), drafters=("a",)))
    machine.plan(plan(SINGLE, *both, round_id=2), NOW)
    retry = machine.candidates(2, [Guess("s", None, missed=True), guess(9, session="t")], 900, NOW)
    assert told(retry) == "a#3 s 0+[1, 2, 5] x3"
    found = {result.session_id: paths(result.tree) for result in trees_of(machine.candidates(3, [guess(8)], 900, NOW))}
    assert found == {"s": {(8,): 0}, "t": {(9,): 0}}


def test_tokens_that_fusion_does_not_hold_are_asked_for() -> None:
    machine = fusion("a")
    found = machine.plan(plan(SINGLE, item(base=7, tokens=(1,), drafters=("a",))), NOW)
    assert told(found) == "s@7 missed"


def test_a_restarted_drafter_is_sent_the_whole_context() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",))), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    machine.drafter_up("a")
    again = machine.plan(plan(SINGLE, item(base=2, tokens=(5,), drafters=("a",)), round_id=2), NOW)
    assert told(again) == "a#2 s 0+[1, 2, 5] x3"


def test_a_drafter_lost_in_the_middle_of_an_exchange_is_gone_on_without() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(FUSED, item()), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    assert told(machine.drafter_down("b", NOW)) == "a#3 s 2+[5] x1"
    machine.candidates(3, [guess(6)], 900, NOW)
    assert told(machine.candidates(4, [guess(7)], 900, NOW)) == "s@2 5:50%1 5.6:50%1 5.6.7:50%1"


def test_the_last_drafter_lost_ends_the_plan_at_once() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(MERGED, item()), NOW)
    machine.drafter_down("a", NOW)
    assert told(machine.drafter_down("b", NOW)) == "s@2"


def test_a_plan_nobody_can_help_with_is_done_at_once() -> None:
    assert told(fusion().plan(plan(FUSED, item()), NOW)) == "s@2"


def test_a_drafter_that_cannot_is_left_out() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(MERGED, item()), NOW)
    machine.candidates(1, [Guess("s", None)], 900, NOW)
    assert told(machine.candidates(2, [guess(5)], 900, NOW)) == "s@2 5:50%10"


def test_a_deadline_gives_what_has_arrived() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(FUSED, item()), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    assert machine.next_deadline() == pytest.approx(NOW + 0.2)
    assert machine.tick(NOW + 0.1) == []
    assert told(machine.tick(NOW + 0.2)) == "b drops [2]\ns@2 5:50%1"
    assert machine.next_deadline() is None


def test_a_deadline_keeps_the_exchanges_that_were_complete() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(FUSED, item()), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    machine.candidates(2, [guess(6, confidence=0.8)], 900, NOW)
    assert told(machine.tick(NOW + 1)) == "a drops [3]\nb drops [4]\ns@2 5:50%1 6:80%10"


def test_an_answer_that_nobody_waits_for_is_dropped_and_counted() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(MERGED, item()), NOW)
    machine.tick(NOW + 1)
    assert machine.candidates(1, [guess(5)], 900, NOW + 1) == []
    assert machine.candidates(77, [guess(5)], 900, NOW + 1) == []
    assert machine.stale_count == 2


def test_the_same_answer_twice_counts_once() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(MERGED, item()), NOW)
    assert machine.candidates(1, [guess(5)], 900, NOW) == []
    assert machine.candidates(1, [guess(6)], 900, NOW) == []
    assert told(machine.candidates(2, [guess(5)], 900, NOW)) == "s@2 5:50%11"


def test_a_new_plan_for_a_session_takes_it_from_the_old_one() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",)), round_id=1), NOW)
    newer = machine.plan(plan(SINGLE, item(base=2, tokens=(9,), drafters=("a",)), round_id=2), NOW)
    assert told(newer) == "a drops [1]\nnothing\na#2 s 0+[1, 2, 9] x3"
    assert machine.candidates(1, [guess(5)], 900, NOW) == []
    assert machine.stale_count == 0, "it was told to drop it"
    assert told(machine.candidates(2, [guess(6)], 900, NOW)) == "s@3 6:50%1"


def test_what_was_proposed_before_a_newer_plan_came_is_judged_all_the_same() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item(drafters=("a",)), round_id=1), NOW)
    machine.candidates(1, [guess(5, confidence=0.95)], 900, NOW)
    machine.plan(plan(FUSED, item(base=2, tokens=(9,), drafters=("a",)), round_id=2), NOW)
    assert [(its.tried, its.hit) for its in machine._calibrations["a"].bins if its.tried] == [(1.0, 0.0)]


def test_a_closed_session_is_drafted_for_no_more() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item("s", drafters=("a",)), item("t", drafters=("a",))), NOW)
    machine.close(["s"])
    went_on = machine.candidates(1, [guess(5, session="s"), guess(6, session="t")], 900, NOW)
    assert told(went_on) == "a#2 t 2+[6] x1"


def test_a_drafter_that_misses_deadlines_rests_and_is_tried_again() -> None:
    machine, now = fusion("a", "b"), NOW
    for round_id in range(MISSES_MAX):
        machine.plan(plan(MERGED, item(), round_id=round_id), now)
        machine.candidates(2 * round_id + 1, [guess(5)], 900, now)
        now += 1.0
        machine.tick(now)
    resting = machine.plan(plan(MERGED, item(), round_id=50), now)
    assert [step.drafter for step in resting if isinstance(step, Step)] == ["a"]
    rested = machine.plan(plan(MERGED, item(), round_id=51), now + REST_S)
    assert [step.drafter for step in rested if isinstance(step, Step)] == ["a", "b"]


def test_drafting_stops_where_the_path_is_no_longer_worth_it() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item(drafters=("a",), value_min=0.3)), NOW)
    assert told(machine.candidates(1, [guess(5, confidence=0.6)], 900, NOW)) == "a#2 s 2+[5] x1"
    assert told(machine.candidates(2, [guess(6, confidence=0.4)], 900, NOW)) == "s@2 5:60%1 5.6:40%1"


def test_a_tree_keeps_to_its_node_budget() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(MERGED, item(node_budget=2)), NOW)
    machine.candidates(1, [guess(5, 6, 7, confidence=0.9)], 900, NOW)
    assert told(machine.candidates(2, [guess(8, confidence=0.2)], 900, NOW)) == "s@2 5:90%1 5.6:90%1"


def test_a_drafter_that_has_no_more_to_say_ends_the_exchanges() -> None:
    machine = fusion("a")
    machine.plan(plan(FUSED, item(drafters=("a",))), NOW)
    machine.candidates(1, [guess(5)], 900, NOW)
    assert told(machine.candidates(2, [Guess("s", TokenTree())], 900, NOW)) == "s@2 5:50%1"


def test_the_oldest_sessions_make_room_for_new_ones() -> None:
    machine = fusion("a", sessions_max=2)
    for number, session in enumerate("stu"):
        machine.plan(plan(SINGLE, item(session, drafters=("a",)), round_id=number), NOW)
    assert machine.session_count == 2
    machine.close(["t", "unknown"])
    assert machine.session_count == 1
    assert told(machine.plan(plan(SINGLE, item("s", 2, (3,)), round_id=9), NOW)).endswith("s@2 missed")


def test_a_drafter_that_is_wrong_at_high_confidence_is_believed_less() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",), depth=1)), NOW)
    tokens, estimates = 2, []
    for round_id in range(2, 40):
        (result,) = trees_of(machine.candidates(round_id - 1, [guess(5, confidence=0.95)], 900, NOW))
        estimates.append(result.tree.confidences[0])
        machine.plan(plan(SINGLE, item(base=tokens, tokens=(6,), drafters=("a",), depth=1), round_id=round_id), NOW)
        tokens += 1
    assert estimates[0] == pytest.approx(0.95)
    assert estimates[-1] < 0.05
    assert machine._calibrations["a"].estimator()(0.95) < 0.2


def test_only_tokens_below_the_committed_path_are_judged() -> None:
    machine = fusion("a")
    machine.plan(plan(SINGLE, item(drafters=("a",))), NOW)
    tree = merge([chain([5, 6], [0.95, 0.95]), chain([7, 8], [0.05, 0.95])])
    machine.candidates(1, [Guess("s", tree)], 900, NOW)
    machine.plan(plan(SINGLE, item(base=2, tokens=(7, 9), drafters=("a",)), round_id=2), NOW)
    known = [(its.tried, its.hit) for its in machine._calibrations["a"].bins if its.tried]
    assert known == [(1.0, 1.0), (2.0, 0.0)], "7 was right; 5 and 8 were wrong; of 6 nothing is known"


def test_cancelled_steps_that_are_never_answered_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosine.core.fusion.CANCELLED_MAX", 2)
    machine = fusion("a")
    for step_id in (1, 2, 3):
        machine.plan(plan(SINGLE, item(f"s{step_id}", drafters=("a",)), round_id=step_id), NOW)
        assert told(machine.close([f"s{step_id}"])) == f"a drops [{step_id}]\nnothing\na closes s{step_id}"
    counts = []
    for step_id in (3, 2, 1):
        machine.candidates(step_id, [], 900, NOW)
        counts.append(machine.stale_count)
    assert counts == [0, 0, 1], "the answer to the oldest is one that nobody asked for"


def test_a_drafter_that_drains_is_asked_nothing_new_and_still_answers() -> None:
    machine = fusion("a", "b")
    machine.plan(plan(FUSED, item()), NOW)
    machine.drafter_draining("a")
    assert told(machine.plan(plan(SINGLE, item("t", drafters=("a",)), round_id=2), NOW)) == "t@2"
    machine.candidates(1, [guess(5)], 900, NOW)
    assert told(machine.candidates(2, [guess(6, confidence=0.9)], 900, NOW)) == "b#3 s 2+[6] x1"
