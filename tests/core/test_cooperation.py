"""What drafters make of one another: nothing (single), go on from the fused token (replace), or from both (fork)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from harness import TARGET, Mesh, draft_step, paths, toy

from cosine.core.fusion import Command, Fusion
from cosine.core.plan import Cooperation, DraftPlan, Guess, PlanItem, Reading, Step, Trees
from cosine.core.tree import ROOT, TokenTree, chain

COMMITTED = (1, 2)
REPLACE, FORK = Reading.REPLACE, Reading.FORK

Way = tuple[int, ...]


def plan(reading: Reading, depth: int = 3) -> DraftPlan:
    return DraftPlan(1, Cooperation.FUSED, (PlanItem("s", 0, COMMITTED, ("a", "b"), depth),), 1, reading=reading)


def fusion() -> Fusion:
    machine = Fusion()
    machine.drafter_up("a")
    machine.drafter_up("b")
    return machine


def guess(token: int, confidence: float) -> Guess:
    return Guess("s", chain([token], [confidence]))


def grown(step: Step, *more: tuple[int, int, float]) -> Guess:
    """The tree that a step sent with nodes (parent, token, confidence) added: how it is answered."""
    tree = step.items[0].tree
    parents, token_ids, confidences = zip(*more, strict=True)
    return Guess(
        "s",
        TokenTree(
            (*tree.token_ids, *token_ids),
            (*tree.parents, *parents),
            (*tree.confidences, *confidences),
            (1,) * (len(tree) + len(more)),
        ),
    )


def goes_on_from(step: Step, backbone: Sequence[int] = ()) -> set[Way]:
    """The ends of all paths behind the committed tokens that a drafter is asked to continue. What precedes the step's
    base it holds: committed tokens, then some of the backbone."""
    (item,) = step.items
    sent = (*(*COMMITTED, *backbone)[: item.base_length], *item.token_ids)[len(COMMITTED) :]
    inner = {*item.tree.parents, ROOT} if item.tree else set()
    return {(*sent, *way) for way, node in paths(item.tree).items() if node not in inner} or {sent}


def steps(commands: Sequence[Command]) -> dict[str, Step]:
    return {command.drafter: command for command in commands if isinstance(command, Step)}


def after_first_exchange(machine: Fusion, reading: Reading) -> dict[str, Step]:
    """The drafter b said 5 and lost to a, which said 7: what both are asked next."""
    first = steps(machine.plan(plan(reading), 0.0))
    machine.candidates(first["a"].step_id, [guess(7, 0.8)], 1, 0.0)
    return steps(machine.candidates(first["b"].step_id, [guess(5, 0.5)], 1, 0.0))


def delivered(commands: Sequence[Command]) -> set[Way]:
    """The paths of the tree that a plan ends with."""
    (trees,) = commands
    assert isinstance(trees, Trees)
    return set(paths(trees.results[0].tree))


# -- replace


def test_under_replace_a_drafter_whose_token_lost_goes_on_from_the_fused_one_alone() -> None:
    asked = after_first_exchange(fusion(), REPLACE)
    assert {drafter: goes_on_from(step) for drafter, step in asked.items()} == {"a": {(7,)}, "b": {(7,)}}


def test_under_replace_a_token_that_lost_is_an_end_in_the_tree() -> None:
    machine = fusion()
    second = after_first_exchange(machine, REPLACE)
    machine.candidates(second["b"].step_id, [guess(8, 0.6)], 1, 0.0)
    third = steps(machine.candidates(second["a"].step_id, [guess(9, 0.9)], 1, 0.0))
    assert {drafter: goes_on_from(step, (7,)) for drafter, step in third.items()} == {"a": {(7, 9)}, "b": {(7, 9)}}
    machine.candidates(third["a"].step_id, [guess(3, 0.5)], 1, 0.0)
    tree = delivered(machine.candidates(third["b"].step_id, [guess(3, 0.5)], 1, 0.0))
    assert tree == {(5,), (7,), (7, 8), (7, 9), (7, 9, 3)}


# -- fork


def test_under_fork_a_drafter_whose_token_lost_goes_on_from_both_and_the_other_from_its_own() -> None:
    asked = after_first_exchange(fusion(), FORK)
    assert {drafter: goes_on_from(step) for drafter, step in asked.items()} == {"a": {(7,)}, "b": {(5,), (7,)}}


def test_under_fork_each_drafters_own_path_goes_on_from_where_it_left_it() -> None:
    machine = fusion()
    second = after_first_exchange(machine, FORK)
    assert second["b"].items[0].tree.token_ids == (7, 5)
    machine.candidates(second["b"].step_id, [grown(second["b"], (1, 6, 0.5), (1, 4, 0.3), (0, 8, 0.6))], 1, 0.0)
    third = steps(machine.candidates(second["a"].step_id, [grown(second["a"], (0, 9, 0.9))], 1, 0.0))
    asked = {drafter: goes_on_from(step) for drafter, step in third.items()}
    assert asked == {"a": {(7, 9)}, "b": {(5, 6), (7, 9)}}, "behind 5 the drafter itself prefers 6"
    machine.candidates(third["a"].step_id, [grown(third["a"], (1, 3, 0.5))], 1, 0.0)
    assert third["b"].items[0].tree.token_ids == (7, 5, 6, 9)
    tree = delivered(machine.candidates(third["b"].step_id, [grown(third["b"], (2, 3, 0.5), (3, 3, 0.5))], 1, 0.0))
    assert tree == {(5,), (5, 6), (5, 4), (5, 6, 3), (7,), (7, 8), (7, 9), (7, 9, 3)}


def test_under_fork_a_drafter_that_lost_its_cache_is_sent_the_whole_context_and_both_paths() -> None:
    machine = fusion()
    second = after_first_exchange(machine, FORK)
    again = steps(machine.candidates(second["b"].step_id, [Guess("s", None, missed=True)], 1, 0.0))
    assert again["b"].items[0].base_length == 0
    assert goes_on_from(again["b"]) == {(5,), (7,)}


@pytest.mark.parametrize(("reading", "end_counts"), [(REPLACE, {1}), (FORK, {1, 2})])
def test_a_drafter_continues_every_path_that_it_is_asked_to(reading: Reading, end_counts: set[int]) -> None:
    """With real drafters that never agree: something new hangs below each end."""
    machine = fusion()
    engines = {"a": toy(f"{TARGET},own=8,skill=0"), "b": toy(f"{TARGET},own=9,skill=0")}
    held: dict[str, Way] = dict.fromkeys(engines, COMMITTED)
    commands, counts = machine.plan(plan(reading, depth=4), 0.0), set[int]()
    while asked := steps(commands):
        for drafter, step in asked.items():
            (item,) = step.items
            ends = goes_on_from(step, held[drafter][len(COMMITTED) :])
            counts.add(len(ends))
            held[drafter] = (*held[drafter][: item.base_length], *item.token_ids)
            (answer,) = draft_step(engines[drafter], step)
            assert answer.tree is not None
            sent = held[drafter][len(COMMITTED) :]
            new = {(*sent, *way) for way in paths(answer.tree).keys() - paths(item.tree).keys()}
            assert {way[:-1] for way in new} == ends
            commands = machine.candidates(step.step_id, [answer], 1, 0.0)
    assert counts == end_counts
    assert len(delivered(commands)) >= 4


# -- single


class Asking(Mesh):
    """Remembers who was asked in each plan, every time."""

    def __init__(self) -> None:
        self.asked: dict[int, list[str]] = {}
        super().__init__()

    def _post_step(self, step: Step) -> None:
        self.asked.setdefault(step.round_id, []).append(step.drafter)
        super()._post_step(step)


def askings(strategy: str) -> list[list[str]]:
    """Who is asked for one request, plan by plan."""
    mesh = Asking()
    text = mesh.ask("r", count=40, strategy=f"{strategy},length=fixed,lookahead=0")
    mesh.run()
    assert text.tokens == text.plain
    return list(mesh.asked.values())


def test_single_asks_one_drafter_once_in_every_plan() -> None:
    single = askings("cosine:cooperation=single,drafter_count=1,first_count=1")
    assert {len(drafters) for drafters in single} == {1}


def test_merged_asks_several_once_and_fused_as_often_as_they_exchange() -> None:
    merged, fused = askings("cosine:cooperation=merged"), askings("cosine:fusion_interval=2")
    assert all(len(set(drafters)) == len(drafters) > 1 for drafters in merged)
    assert max(drafters.count(drafters[0]) for drafters in fused) == 4, "a depth of 8, two tokens at a time"
