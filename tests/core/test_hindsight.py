"""Looking ahead is kept where it pays, dropped where it does not, and tried again when things change."""

from __future__ import annotations

from cosine.core.hindsight import STAY, TRIAL, Hindsight


def play(hindsight: Hindsight, rounds: int, ahead_ms: float, plain_ms: float) -> float:
    """Share of rounds that looked ahead; every round brings 4 tokens."""
    ahead_count = 0
    for _ in range(rounds):
        ahead_count += hindsight.on
        hindsight.note(hindsight.on, 4, ahead_ms if hindsight.on else plain_ms, shared=True)
    return ahead_count / rounds


def test_it_is_kept_where_it_pays() -> None:
    assert play(Hindsight(), 10 * STAY, ahead_ms=30.0, plain_ms=36.0) > 0.85


def test_it_is_dropped_where_it_slows_the_target_down() -> None:
    assert play(Hindsight(), 10 * STAY, ahead_ms=40.0, plain_ms=36.0) < 0.25


def test_a_change_is_followed() -> None:
    hindsight = Hindsight()
    play(hindsight, 1000, ahead_ms=40.0, plain_ms=36.0)
    play(hindsight, 3 * (STAY + TRIAL), ahead_ms=30.0, plain_ms=36.0)
    assert play(hindsight, 1000, ahead_ms=30.0, plain_ms=36.0) > 0.8


def test_rounds_of_the_other_way_that_come_late_do_not_end_a_trial() -> None:
    hindsight = Hindsight()
    for _ in range(10 * TRIAL):
        hindsight.note(False, 4, 30.0)
    assert hindsight.on


def test_it_is_questioned_where_drafters_share_processors_and_nowhere_else() -> None:
    alone, shared = Hindsight(), Hindsight()
    for _ in range(TRIAL):
        alone.note(True, 4, 30.0)
        shared.note(True, 4, 30.0, shared=True)
    assert (alone.on, shared.on) == (True, False)
    for _ in range(10 * STAY):
        alone.note(True, 4, 30.0)
    assert alone.on
