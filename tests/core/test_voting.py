"""The voted path: heaviest votes win, and verdicts move the weights (Minions)."""

from __future__ import annotations

from cosine.core.fusion import Fusion
from cosine.core.plan import Cooperation, DraftPlan, Guess, PlanItem, Trees
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


def test_fusion_delivers_one_path_and_learns_whose_votes_count() -> None:
    machine = Fusion()
    for name in DRAFTERS:
        machine.drafter_up(name)
    tokens, elected = 1, []
    for round_id in range(1, 25):
        item = PlanItem("s", tokens - 1 if round_id > 1 else 0, (7,), DRAFTERS, depth=1, node_budget=8)
        steps = machine.plan(DraftPlan(round_id, Cooperation.VOTED, (item,)), 0.0)
        for step in steps[:-1]:
            word = 7 if step.drafter == "a" else 9  # type: ignore[union-attr]  # no trees before the last answer
            machine.candidates(step.step_id, [Guess("s", chain([word], [0.5]))], 1, 0.0)  # type: ignore[union-attr]  # no trees before the last answer
        word = 7 if steps[-1].drafter == "a" else 9  # type: ignore[union-attr]  # no trees before the last answer
        (trees,) = machine.candidates(steps[-1].step_id, [Guess("s", chain([word], [0.5]))], 1, 0.0)  # type: ignore[union-attr]  # no trees before the last answer
        assert isinstance(trees, Trees)
        elected.append(trees.results[0].tree.token_ids)
        tokens += 1
    assert elected[0] == (9,), "two against one"
    assert elected[-1] == (7,), "the target kept saying 7"
