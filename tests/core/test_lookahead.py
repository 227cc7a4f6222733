"""Drafting on while a verdict is out: what is kept, what is cancelled, what the next plan starts from."""

from __future__ import annotations

from collections.abc import Sequence

from cosine.core.fusion import MISSES_MAX, Command, Fusion
from cosine.core.growth import AHEAD_STEPS
from cosine.core.plan import CancelSteps, CloseSessions, Cooperation, DraftPlan, Guess, PlanItem, Step, Trees
from cosine.core.tree import EMPTY, ROOT, TokenTree, chain


def plan(round_id: int, base: int, tokens: Sequence[int], lookahead: int = 4, depth: int = 3) -> DraftPlan:
    item = PlanItem("s", base, tuple(tokens), ("a",), depth, width=2, node_budget=16)
    return DraftPlan(round_id, Cooperation.FUSED, (item,), 8, lookahead=lookahead)


def steps(commands: Sequence[Command]) -> list[Step]:
    return [command for command in commands if isinstance(command, Step)]


def grown(tree: TokenTree, *more: tuple[int, int]) -> TokenTree:
    """A tree with nodes (parent, token) added, as a drafter answers a step with a tree."""
    parents = (*tree.parents, *(parent for parent, _ in more))
    tokens = (*tree.token_ids, *(token for _, token in more))
    return TokenTree(tokens, parents, (*tree.confidences, *(0.5 for _ in more)))


def machine_with_tree(lookahead: int = 4) -> tuple[Fusion, list[Command]]:
    """A session with the tokens [1, 2] whose tree 5-6-7 has just been delivered."""
    machine = Fusion()
    machine.drafter_up("a")
    (step,) = steps(machine.plan(plan(1, 0, (1, 2), lookahead), 0.0))
    return machine, machine.candidates(step.step_id, [Guess("s", chain([5, 6, 7], [0.9] * 3))], 100, 0.0)


def test_delivered_trees_grow_on_as_a_whole() -> None:
    _, commands = machine_with_tree()
    assert isinstance(commands[0], Trees)
    (step,) = steps(commands)
    assert step.items[0].tree.token_ids == (5, 6, 7)
    assert step.items[0].token_ids[-1] == 2, "below the last committed token"


def test_without_lookahead_nothing_grows_on() -> None:
    _, commands = machine_with_tree(lookahead=0)
    assert steps(commands) == []


def test_what_the_verdict_leaves_of_the_tree_is_where_the_next_plan_starts() -> None:
    machine, commands = machine_with_tree()
    (ahead,) = steps(commands)
    tree = ahead.items[0].tree
    machine.candidates(ahead.step_id, [Guess("s", grown(tree, (2, 8), (3, 9), (4, 10)))], 100, 0.0)
    told = machine.plan(plan(2, 2, (5, 6, 7, 8), depth=2), 0.0)
    (trees,) = [command for command in told if isinstance(command, Trees)]
    (drafted,) = trees.results
    assert (drafted.tree.token_ids, drafted.tree.parents) == ((9, 10), (ROOT, 0))
    assert drafted.kept_depth == 2
    assert drafted.exchange_count == 0, "all of it was drafted while the verdict was out"


def test_the_part_that_is_missing_is_drafted_below_what_was_kept() -> None:
    machine, commands = machine_with_tree()
    (ahead,) = steps(commands)
    machine.candidates(ahead.step_id, [Guess("s", grown(ahead.items[0].tree, (2, 8), (3, 9)))], 100, 0.0)
    (step,) = steps(machine.plan(plan(2, 2, (5, 6, 7, 8), depth=3), 0.0))
    assert step.items[0].tree.token_ids == (9,)
    assert step.items[0].step_count == 2


def test_a_verdict_that_leaves_the_tree_starts_afresh_and_cancels_what_is_under_way() -> None:
    machine, commands = machine_with_tree()
    (ahead,) = steps(commands)
    told = machine.plan(plan(2, 2, (5, 99)), 0.0)
    assert CancelSteps("a", (ahead.step_id,)) in told
    (step,) = steps(told)
    assert len(step.items[0].tree) == 0
    assert machine.candidates(ahead.step_id, [Guess("s", ahead.items[0].tree)], 100, 0.0) == []
    assert machine.stale_count == 0


def test_a_closed_session_is_drafted_ahead_for_no_more() -> None:
    machine, commands = machine_with_tree()
    (ahead,) = steps(commands)
    assert machine.close(["s"]) == [CancelSteps("a", (ahead.step_id,)), CloseSessions("a", ("s",))]


def test_lookahead_ends_after_its_steps_and_needs_no_deadline() -> None:
    machine, commands = machine_with_tree(lookahead=2 * AHEAD_STEPS)
    assert machine.next_deadline() is None
    for token in (8, 9):
        (ahead,) = steps(commands)
        tree = ahead.items[0].tree
        commands = machine.candidates(ahead.step_id, [Guess("s", grown(tree, (len(tree) - 1, token)))], 100, 0.0)
    assert commands == []


def test_what_was_kept_is_judged_once_its_place_is_reached() -> None:
    machine, commands = machine_with_tree()
    (ahead,) = steps(commands)
    machine.candidates(ahead.step_id, [Guess("s", grown(ahead.items[0].tree, (2, 8), (3, 9)))], 100, 0.0)
    machine.plan(plan(2, 2, (5, 6, 7, 8)), 0.0)
    tried = sum(its.tried for its in machine._calibrations["a"].bins)
    assert tried == 4, "5, 6, 7 and 8"
    machine.plan(plan(3, 6, (9,)), 0.0)
    assert sum(its.tried for its in machine._calibrations["a"].bins) == 5


def weighed(*nodes: tuple[int, int, float], base: TokenTree = EMPTY) -> TokenTree:
    """A tree of nodes (parent, token, confidence), behind those of another."""
    return TokenTree(
        (*base.token_ids, *(token for _, token, _ in nodes)),
        (*base.parents, *(parent for parent, _, _ in nodes)),
        (*base.confidences, *(confidence for _, _, confidence in nodes)),
    )


def test_drafters_are_sent_the_ends_worth_going_on_from_and_the_way_to_them() -> None:
    machine = Fusion()
    machine.drafter_up("a")
    (step,) = steps(machine.plan(plan(1, 0, (1, 2)), 0.0))
    answer = weighed((ROOT, 5, 0.9), (ROOT, 6, 0.001), (0, 7, 0.9), (2, 8, 0.9), (2, 9, 0.09))
    (ahead,) = steps(machine.candidates(step.step_id, [Guess("s", answer)], 100, 0.0))
    assert ahead.items[0].tree.token_ids == (5, 7, 8, 9), "nobody will look behind 6"


def test_siblings_that_are_hardly_ever_right_are_not_asked_for_while_looking_ahead() -> None:
    machine = Fusion()
    machine.drafter_up("a")
    (step,) = steps(machine.plan(plan(1, 0, (1, 2)), 0.0))
    (ahead,) = steps(machine.candidates(step.step_id, [Guess("s", chain([5, 7], [0.9, 0.9]))], 100, 0.0))
    assert step.items[0].sibling_min == 0.0, "a round's own tree may need each"
    assert ahead.items[0].sibling_min > 0.0


def test_where_nothing_was_drafted_looking_ahead_starts_at_the_root() -> None:
    machine = Fusion()
    machine.drafter_up("a")
    (step,) = steps(machine.plan(plan(1, 0, (1, 2)), 0.0))
    (ahead,) = steps(machine.candidates(step.step_id, [Guess("s", EMPTY)], 100, 0.0))
    assert (ahead.items[0].token_ids[-1], len(ahead.items[0].tree)) == (2, 0)


def test_what_is_not_worth_waiting_for_is_drafted_while_the_verdict_is_out() -> None:
    machine = Fusion()
    machine.drafter_up("a")
    item = PlanItem("s", 0, (1, 2), ("a",), 3, width=2, value_min=1.5)
    told = machine.plan(DraftPlan(1, Cooperation.FUSED, (item,), 8, lookahead=4), 0.0)
    assert isinstance(told[0], Trees)
    assert len(told[0].results[0].tree) == 0, "verified with what is there"
    (ahead,) = steps(told)
    machine.candidates(ahead.step_id, [Guess("s", chain([5, 6, 7], [0.9] * 3))], 100, 0.0)
    told = machine.plan(plan(2, 2, (5,), depth=2), 0.0)
    (trees,) = [command for command in told if isinstance(command, Trees)]
    assert trees.results[0].tree.token_ids == (6, 7)


def test_no_drafter_is_late_with_what_grows_on() -> None:
    """Nobody waits for it; another plan's deadline does not end it."""
    machine = Fusion()
    machine.drafter_up("a")
    machine.drafter_up("b")
    ahead: list[Step] = []
    for number in range(MISSES_MAX):
        item = PlanItem(f"s{number}", 0, (1, 2), ("a",), 3, width=2, node_budget=16)
        asked = machine.plan(DraftPlan(number, Cooperation.FUSED, (item,), 8, 100.0, lookahead=4), 0.0)
        answer = [Guess(f"s{number}", chain([5, 6, 7], [0.9] * 3))]
        ahead += steps(machine.candidates(steps(asked)[0].step_id, answer, 100, 0.0))
    late = PlanItem("t", 0, (1, 2), ("b",), 3)
    machine.plan(DraftPlan(MISSES_MAX, Cooperation.FUSED, (late,), 8, 100.0), 0.1)
    told = machine.tick(0.2)
    assert [command.drafter for command in told if isinstance(command, CancelSteps)] == ["b"]
    machine.candidates(ahead[0].step_id, [Guess("s0", grown(ahead[0].items[0].tree, (2, 8)))], 100, 0.2)
    follow_up = PlanItem("s0", 2, (5, 6, 7), ("a",), 2)
    (step,) = steps(machine.plan(DraftPlan(9, Cooperation.FUSED, (follow_up,), 8), 0.2))
    assert step.drafter == "a", "it does not rest"
    assert machine.stale_count == 0
