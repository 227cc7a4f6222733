"""What each drafter thought of its tokens comes to the route as it said it, where the score asks for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from harness import DRAFTERS, Mesh, paths, toy

from cosine.core import events as ev
from cosine.core import live, routing
from cosine.core.fusion import Fusion, Step, Trees
from cosine.core.plan import Cooperation, DraftedTree, DraftItem, DraftPlan, Guess, PlanItem
from cosine.core.routing import Score
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import ROOT, TokenTree, chain
from cosine.engine.drafting import draft

SAMPLED = Sampling(temperature=1.0, seed=11)
WEIGHED = "cosine:score=harmonic,length=fixed"

Opinions = Mapping[tuple[int, ...], Sequence[float]]


def asked(name: str, context: Sequence[int], sampling: Sampling) -> dict[int, float]:
    """What a drafter that has seen nothing else thinks of the next token."""
    (result,) = draft(toy(DRAFTERS[name]), [DraftItem("probe", 0, tuple(context), width=8, sampling=sampling)])
    return dict(zip(result.tree.token_ids, result.tree.confidences, strict=True))


class Judged:
    """Stands in for the route's judge, and keeps what it is given: the text so far, the drafters and their tree."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.seen: list[tuple[tuple[int, ...], Sequence[str], TokenTree]] = []

    def __call__(self, score: Score, models: Sequence[str], tree: TokenTree, *more: Any, **named: Any) -> Any:
        (text,) = self._mesh.texts.values()
        self.seen.append(((*text.admission.token_ids, *text.tokens), models, tree))
        return routing.judge(score, models, tree, *more, **named)


def judged(strategy: str, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> tuple[Mesh, Judged]:
    """A request from its beginning to its end."""
    mesh = Mesh()
    judge = Judged(mesh)
    monkeypatch.setattr(live, "judge", judge)
    text = mesh.ask("r", count=40, sampling=sampling, strategy=strategy)
    mesh.run()
    assert text.tokens == text.plain
    return mesh, judge


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("more", ["", ",lookahead=0", ",reading=fork,fusion_interval=2", ",cooperation=merged"])
def test_the_route_hears_of_every_proposer_what_it_said_itself(
    sampling: Sampling, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, judge = judged(WEIGHED + more, sampling, monkeypatch)
    several = 0
    for context, models, tree in judge.seen:
        assert len(tree.opinions) == len(tree)
        for path, node in paths(tree).items():
            proposers = [model for bit, model in enumerate(models) if tree.proposers[node] >> bit & 1]
            said = [asked(name, (*context, *path[:-1]), sampling)[path[-1]] for name in proposers]
            assert tree.opinions[node] == pytest.approx(said)
            several += len(said) > 1 and min(said) != max(said)
    assert several, "drafters differed over the same node, and still each one's word was kept"


ONE_CHAIN = "cooperation=single,drafter_count=1,first_count=1,width=1,beam=1"


@pytest.mark.parametrize("strategy", ["cosine:score=hits", "minions", f"{WEIGHED},runs=2,lookahead=0,{ONE_CHAIN}"])
def test_nobody_is_asked_for_opinions_that_no_route_weighs(strategy: str) -> None:
    mesh = Mesh()
    text = mesh.ask("r", count=40, strategy=strategy)
    mesh.run()
    assert text.tokens == text.plain
    plans = [command.plan for command in mesh.sent if isinstance(command, ev.SendPlan)]
    trees = [event.tree.tree for event in mesh.answers if isinstance(event, ev.TreeCame)]
    assert any(map(len, trees))
    assert not any(plan.opinions for plan in plans)
    assert not any(tree.opinions for tree in trees)
    assert not any(item.judge for command in mesh.sent if isinstance(command, ev.SendBatch) for item in command.items)


def test_a_plan_asks_for_opinions_where_the_verifier_is_asked_for_agreements() -> None:
    mesh = Mesh()
    mesh.ask("r", count=40, strategy=WEIGHED)
    mesh.run()
    assert all(command.plan.opinions for command in mesh.sent if isinstance(command, ev.SendPlan))
    batches = [command for command in mesh.sent if isinstance(command, ev.SendBatch)]
    assert any(item.judge for batch in batches for item in batch.items)


# -- the fusion machine alone


def machine(*drafters: str) -> Fusion:
    found = Fusion()
    for drafter in drafters:
        found.drafter_up(drafter)
    return found


def plan(item: PlanItem, round_id: int = 1, opinions: bool = True, **more: Any) -> DraftPlan:
    return DraftPlan(round_id, Cooperation.FUSED, (item,), 8, opinions=opinions, **more)


def play(fusion: Fusion, plan: DraftPlan, said: Mapping[str, TokenTree]) -> DraftedTree:
    """The plan's tree where each drafter answers once, and goes on with nothing."""
    waiting, done = fusion.plan(plan, 0.0), list[DraftedTree]()
    while waiting:
        command = waiting.pop(0)
        if isinstance(command, Step):
            (item,) = command.items
            tree = said[command.drafter] if not done and not item.tree else item.tree
            waiting += fusion.candidates(command.step_id, [Guess("s", tree)], 0, 0.0)
        elif isinstance(command, Trees):
            done += command.results
    (drafted,) = done
    return drafted


def opinions(tree: TokenTree) -> Opinions:
    return {path: tree.opinions[node] for path, node in paths(tree).items()}


SAID = {"a": chain([5, 6, 7], [0.9, 0.8, 0.7]), "b": chain([5, 6, 8], [0.2, 0.3, 0.4])}


def test_opinions_stand_in_the_order_of_the_proposers_bits() -> None:
    item = PlanItem("s", 0, (1, 2), ("b", "a"), 3)
    drafted = play(machine("a", "b"), plan(item), SAID)
    assert opinions(drafted.tree) == {(5,): (0.2, 0.9), (5, 6): (0.3, 0.8), (5, 6, 7): (0.7,), (5, 6, 8): (0.4,)}


def test_a_tree_that_is_cut_to_its_budget_keeps_what_was_said_of_the_rest() -> None:
    item = PlanItem("s", 0, (1, 2), ("a", "b"), 3, node_budget=2)
    drafted = play(machine("a", "b"), plan(item), SAID)
    assert opinions(drafted.tree) == {(5,): (0.9, 0.2), (5, 6): (0.8, 0.3)}


def test_of_a_token_that_a_drafter_says_twice_its_surer_word_counts() -> None:
    twice = TokenTree((5, 5), (ROOT, ROOT), (0.2, 0.6), (1, 1))
    drafted = play(machine("a"), plan(PlanItem("s", 0, (1, 2), ("a",), 1)), {"a": twice})
    assert drafted.tree == TokenTree((5,), (ROOT,), drafted.tree.confidences, (1,), ((0.6,),))


def test_of_a_kept_tree_only_those_who_draft_on_are_heard() -> None:
    fusion = machine("a", "b", "c")
    play(fusion, plan(PlanItem("s", 0, (1, 2), ("a", "b"), 3), lookahead=1), SAID)
    again = PlanItem("s", 2, (5,), ("c", "b"), 2)
    drafted = play(fusion, plan(again, round_id=2, lookahead=1), {})
    assert opinions(drafted.tree) == {(6,): (0.3,), (6, 7): (), (6, 8): (0.4,)}
    assert [bits.bit_count() for bits in drafted.tree.proposers] == list(map(len, drafted.tree.opinions))


def test_without_the_wish_the_same_tree_comes_bare() -> None:
    item = PlanItem("s", 0, (1, 2), ("a", "b"), 3)
    asked_for, bare = (play(machine("a", "b"), plan(item, opinions=wish), SAID).tree for wish in (True, False))
    assert bare == replace(asked_for, opinions=())
