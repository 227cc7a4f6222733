"""What is delivered weighs a token by how many of the crew propose it, as far as verdicts have shown what that says."""

from __future__ import annotations

import pytest

from cosine.core.fusion import Command, Fusion
from cosine.core.plan import Cooperation, DraftedTree, DraftPlan, Guess, PlanItem, Step, Trees
from cosine.core.tree import ROOT, TokenTree

BOTH, SURE_A, SURE_B = 10, 20, 30
SURE = 0.45
ROUNDS = 60


class Crew:
    """Two drafters that propose each a token of its own, then BOTH, all as surely as the other."""

    def __init__(self, calibrated: bool = True) -> None:
        self._machine = Fusion()
        for name in ("a", "b"):
            self._machine.drafter_up(name)
        self._calibrated = calibrated
        self._round_id = 0
        self._length = 0

    def round(self, *committed: int, node_budget: int = 8) -> DraftedTree:
        """Commits tokens; the next tree."""
        self._round_id += 1
        item = PlanItem("s", self._length, committed, ("a", "b"), 1, width=2, node_budget=node_budget)
        plan = DraftPlan(self._round_id, Cooperation.FUSED, (item,), 1, calibrated=self._calibrated)
        self._length += len(committed)
        told = self._machine.plan(plan, 0.0)
        while not any(isinstance(command, Trees) for command in told):
            told = self._answered(told)
        (trees,) = [command for command in told if isinstance(command, Trees)]
        return trees.results[0]

    def _answered(self, told: list[Command]) -> list[Command]:
        after: list[Command] = []
        for step in [command for command in told if isinstance(command, Step)]:
            own = SURE_A if step.drafter == "a" else SURE_B
            tree = TokenTree((own, BOTH), (ROOT, ROOT), (SURE, SURE), (1, 1))
            after = self._machine.candidates(step.step_id, [Guess("s", tree)], 1, 0.0)
        return after


def confidences(drafted: DraftedTree) -> dict[int, float]:
    return dict(zip(drafted.tree.token_ids, drafted.tree.confidences, strict=True))


def taught(crew: Crew) -> Crew:
    """The target takes what both propose half the time, else a token of nobody's."""
    crew.round(1, 2)
    for turn in range(ROUNDS):
        crew.round(BOTH if turn % 2 else 99)
    return crew


def test_what_one_of_two_proposes_sinks_where_it_never_comes() -> None:
    fresh, crew = Crew(), taught(Crew())
    assert confidences(fresh.round(1)) == pytest.approx({BOTH: SURE, SURE_A: SURE, SURE_B: SURE})
    learned = confidences(crew.round(BOTH))
    assert learned[BOTH] > 0.25, "as much as all of its confidence has shown to be worth"
    assert learned[SURE_A] < 0.5 * learned[BOTH]


def test_the_budget_goes_to_what_most_stand_behind() -> None:
    assert taught(Crew()).round(BOTH, node_budget=1).tree.token_ids == (BOTH,)


def test_confidences_that_are_taken_as_they_are_said_stay_so() -> None:
    assert confidences(taught(Crew(calibrated=False)).round(BOTH)) == pytest.approx(
        {BOTH: SURE, SURE_A: SURE, SURE_B: SURE}
    )
