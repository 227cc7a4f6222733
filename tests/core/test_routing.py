"""Routing: the drafter that is accepted most is found, none is left untried, the same past gives the same choice."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.routing import Credit, Route, SharedScores, credits

DRAFTERS = ("d0", "d1", "d2", "d3")


def worth(hits: int) -> Credit:
    """A verdict on a tree of depth 5 in which a drafter was right so often in a row."""
    return Credit(hits, min(5, hits + 1))


def rounds(route: Route, hits: dict[str, int], count: int, together: int = 2) -> list[tuple[str, ...]]:
    """Plays rounds in which every drafter that takes part is right so often in a row."""
    chosen = []
    for _ in range(count):
        team = route.choose(DRAFTERS, together)
        chosen.append(team)
        route.note({drafter: worth(hits[drafter]) for drafter in team})
    return chosen


@pytest.mark.parametrize("best", DRAFTERS)
def test_the_best_drafter_is_found(best: str) -> None:
    hits = {drafter: 4 if drafter == best else 0 for drafter in DRAFTERS}
    assert all(best in team for team in rounds(Route(SharedScores()), hits, 40)[20:])


def test_one_drafter_at_a_time_still_finds_the_best() -> None:
    hits = {"d0": 0, "d1": 1, "d2": 5, "d3": 1}
    assert rounds(Route(SharedScores()), hits, 40, together=1)[-10:] == [("d2",)] * 10


def test_the_best_of_noisy_drafters_is_used_most() -> None:
    dice, route, used = random.Random(2), Route(SharedScores()), dict.fromkeys(DRAFTERS, 0)
    for _ in range(300):
        (drafter,) = route.choose(DRAFTERS, 1)
        hits = min(5, int(dice.expovariate(1 / (3.0 if drafter == "d1" else 0.7))))
        used[drafter] += 1
        route.note({drafter: worth(hits)})
    assert used["d1"] > 150


def test_untried_drafters_are_tried_before_bad_ones_are_tried_again() -> None:
    tried = {
        drafter for team in rounds(Route(SharedScores()), dict.fromkeys(DRAFTERS, 0), 4, together=1) for drafter in team
    }
    assert tried == set(DRAFTERS)


def test_a_new_request_starts_from_what_others_learned() -> None:
    shared = SharedScores()
    for _ in range(30):
        rounds(Route(shared), {"d0": 0, "d1": 0, "d2": 0, "d3": 5}, 10)
    assert Route(shared).choose(DRAFTERS, 1) == ("d3",)


def test_what_one_request_learns_of_its_own_text_beats_what_others_learned() -> None:
    shared = SharedScores(rates={"d0": 0.8, "d1": 0.3, "d2": 0.3, "d3": 0.3})
    route = Route(shared)
    assert "d2" in rounds(route, {"d0": 0, "d1": 0, "d2": 5, "d3": 0}, 40)[-1]


def test_equals_are_chosen_by_name() -> None:
    assert Route(SharedScores()).choose(("d3", "d1", "d2"), 2) == ("d1", "d2")


@given(st.lists(st.integers(0, 5), max_size=20), st.permutations(DRAFTERS))
def test_the_same_past_gives_the_same_choice_in_whatever_order_drafters_are_named(
    past: list[int], order: list[str]
) -> None:
    one, other = Route(SharedScores()), Route(SharedScores())
    for hits in past:
        team = one.choose(DRAFTERS, 2)
        assert team == other.choose(order, 2)
        for route in (one, other):
            route.note({drafter: worth(hits if drafter == "d2" else 1) for drafter in team})


def test_no_more_drafters_are_chosen_than_there_are() -> None:
    route = Route(SharedScores())
    assert (route.choose((), 2), route.choose(("d0",), 2)) == ((), ("d0",))


def test_a_requests_first_round_may_ask_more_drafters_to_learn_of_each() -> None:
    route = Route(SharedScores())
    assert route.choose(DRAFTERS, 2, first_count=4) == DRAFTERS
    route.note({drafter: worth(1) for drafter in DRAFTERS})
    assert len(route.choose(DRAFTERS, 2, first_count=4)) == 2


def test_a_drafter_is_credited_with_the_run_from_the_root_that_it_proposed_and_one_miss() -> None:
    found = credits(("a", "b", "c"), [0b011, 0b001, 0b011], depth=5)
    assert found == {"a": Credit(3, 4), "b": Credit(1, 2), "c": Credit(0, 1)}
    assert credits(("a",), [1, 1], depth=2) == {"a": Credit(2, 2)}, "the tree was no deeper, so nothing was missed"
    assert credits(("a", "b"), [], depth=3) == {"a": Credit(0, 1), "b": Credit(0, 1)}
