"""The voted path: heaviest votes win, and verdicts move the weights (Minions)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cosine.core.fusion import Fusion
from cosine.core.plan import Cooperation, DraftPlan, Guess, PlanItem, Step, Trees
from cosine.core.tree import TokenTree, chain, merge
from cosine.core.voting import WEIGHT_MAX, WEIGHT_MIN, Votes

DRAFTERS = ("a", "b", "c")


def paths_of(*paths: tuple[int, ...]) -> TokenTree:
    """One path per drafter, merged."""
    return merge(chain(path, [0.5] * len(path), proposer=bit) for bit, path in enumerate(paths))


def test_the_majority_wins_over_one_voice() -> None:
    elected = Votes().elect(paths_of((1, 2), (3, 4), (3, 5)), DRAFTERS)
    assert elected.token_ids[0] == 3
    assert len(elected) == 2, "one path, and to its end"


def test_the_vote_changes_with_the_learned_weights() -> None:
    votes, tree = Votes(), paths_of((1, 2), (3, 4), (3, 5))
    for _ in range(30):
        votes.note("a", 4, 4)
        votes.note("b", 0, 4)
        votes.note("c", 0, 4)
    assert votes.weight("a") > votes.weight("b") + votes.weight("c")
    assert votes.elect(tree, DRAFTERS).token_ids == (1, 2)


def test_weights_stay_within_bounds_and_an_unjudged_drafter_keeps_its_own() -> None:
    votes = Votes()
    for _ in range(200):
        votes.note("a", 1, 1)
        votes.note("b", 0, 1)
        votes.note("c", 0, 0)
    assert (votes.weight("a"), votes.weight("b"), votes.weight("c")) == (WEIGHT_MAX, WEIGHT_MIN, 1.0)


def voted(
    machine: Fusion, said: Mapping[str, Guess], base: int = 0, calibrated: bool = True, node_budget: int = 8
) -> TokenTree:
    """What a plan delivers whose drafters say this; the session has `base` tokens and the target adds a 7."""
    item = PlanItem("s", base, (7,), tuple(said), depth=4, node_budget=node_budget)
    answers = machine.plan(DraftPlan(base + 1, Cooperation.VOTED, (item,), calibrated=calibrated), 0.0)
    for step in list(answers):
        assert isinstance(step, Step)
        answers = machine.candidates(step.step_id, [said[step.drafter]], 1, 0.0)
    (trees,) = answers
    assert isinstance(trees, Trees)
    return trees.results[0].tree


def guess(*tokens: int, confidence: float = 0.5) -> Guess:
    return Guess("s", chain(tokens, [confidence] * len(tokens)))


def fusion(*drafters: str) -> Fusion:
    machine = Fusion()
    for name in drafters:
        machine.drafter_up(name)
    return machine


@pytest.mark.parametrize("calibrated", [True, False])
def test_fusion_delivers_one_path_and_learns_whose_votes_count(calibrated: bool) -> None:
    machine = fusion(*DRAFTERS)
    said = {"a": guess(7), "b": guess(9), "c": guess(9)}
    elected = [voted(machine, said, base, calibrated).token_ids for base in range(24)]
    assert elected[0] == (9,), "two against one"
    assert elected[-1] == (7,), "the target kept saying 7"
    assert bool(machine._calibrations) is calibrated, "what confidences are worth is learned only where it is asked for"


def test_all_paths_are_voted_on_whatever_the_budget_for_the_one_that_is_delivered() -> None:
    """Four paths of four tokens, and 4 nodes may be delivered: of the majority's, the least confident, none would
    be among the most valuable four."""
    sure = {
        name: guess(*path, confidence=0.9) for name, path in (("c", (3, 4, 5, 6)), ("d", (4, 5, 6, 7)), ("e", (5,) * 4))
    }
    said = {"a": guess(1, 2, 3, 4, confidence=0.2), "b": guess(1, 2, 3, 4, confidence=0.2), **sure}
    tree = voted(fusion(*said), said, node_budget=4)
    assert tree.token_ids == (1, 2, 3, 4)
    assert tree.proposers == (0b11,) * 4


def test_where_all_differ_one_drafters_path_is_delivered_to_its_end() -> None:
    firsts = {name: 10 * number for number, name in enumerate("abcde", 1)}
    said = {name: guess(*range(first, first + 4), confidence=first / 100) for name, first in firsts.items()}
    assert voted(fusion(*said), said).token_ids == (50, 51, 52, 53), "the most confident one's"


def test_of_the_elected_path_as_much_is_delivered_as_its_budget_allows() -> None:
    said = {"a": guess(1, 2, 3, 4), "b": guess(1, 2, 5, 6), "c": guess(8, 9, confidence=0.9)}
    assert voted(fusion(*said), said, node_budget=2).token_ids == (1, 2)
