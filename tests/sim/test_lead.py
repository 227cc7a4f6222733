"""The sentence about who is ahead compares with the best of the others, each figure with its own."""

from __future__ import annotations

from cosine.sim.lead import Score, lead


def test_each_figure_is_compared_with_the_best_other() -> None:
    scores = {"plain": Score(20.0, 100.0), "spin": Score(10.0, 90.0), "cosine": Score(8.0, 125.0)}
    assert lead(scores) == (
        "cosine takes 20 % less time per token than spin and serves 25 % more tokens per second than plain"
    )


def test_being_behind_is_said_too() -> None:
    scores = {"spin": Score(10.0, 100.0), "cosine": Score(11.0, 95.0)}
    assert lead(scores) == (
        "cosine takes 10 % more time per token than spin and serves 5 % fewer tokens per second than spin"
    )


def test_without_cosine_or_without_others_there_is_nothing_to_say() -> None:
    assert lead({"plain": Score(20.0, 100.0)}) == ""
    assert lead({"cosine": Score(20.0, 100.0), "cosine:lookahead=0": Score(30.0, 60.0)}) == ""
