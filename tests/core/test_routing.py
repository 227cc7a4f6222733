"""Routing: the drafter worth most is found, a bluffer is not, none is left untried, one past gives one choice."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.events import SessionVerdict
from cosine.core.routing import Credit, Route, Score, SharedScores, credits, harmonic_mean, judge
from cosine.core.tree import ROOT, TokenTree, chain, merge

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


def test_a_requests_first_rounds_ask_more_drafters_half_as_many_each_time() -> None:
    route, sizes = Route(SharedScores()), []
    drafters = tuple(f"d{number}" for number in range(8))
    for _ in range(5):
        team = route.choose(drafters, 2, first_count=7)
        sizes.append(len(team))
        route.note({drafter: worth(1) for drafter in team})
    assert sizes == [7, 4, 2, 2, 2]


def test_rarely_tried_drafters_get_their_chance_while_little_is_accepted_and_hardly_while_much_is() -> None:
    def choice(accepted_length: int) -> tuple[str, ...]:
        route = Route(SharedScores(rates={"tried": 0.6, "untried": 0.5}))
        for _ in range(3):
            route.note({"tried": Credit(1.8, 3)}, accepted_length)
        return route.choose(("tried", "untried"), 1)

    assert choice(accepted_length=1) == ("untried",)
    assert choice(accepted_length=6) == ("tried",)


def test_the_accepted_length_is_a_moving_average_that_starts_at_the_first_verdict() -> None:
    route = Route(SharedScores())
    route.note({}, 5)
    assert route.accepted_length == 5
    route.note({}, 1)
    assert 1 < route.accepted_length < 5


def test_without_a_given_length_the_best_participants_places_stand_for_it() -> None:
    route = Route(SharedScores())
    route.note({"d0": Credit(1, 2), "d1": Credit(3, 4)})
    assert route.accepted_length == 4


def test_a_drafter_is_credited_with_the_run_from_the_root_that_it_proposed_and_one_miss() -> None:
    found = credits(("a", "b", "c"), [0b011, 0b001, 0b011], depth=5)
    assert found == {"a": Credit(3, 4), "b": Credit(1, 2), "c": Credit(0, 1)}
    assert credits(("a",), [1, 1], depth=2) == {"a": Credit(2, 2)}, "the tree was no deeper, so nothing was missed"
    assert credits(("a", "b"), [], depth=3) == {"a": Credit(0, 1), "b": Credit(0, 1)}


def verdict(nodes: tuple[int, ...], agreements: dict[int, float]) -> SessionVerdict:
    """A verdict that accepted these nodes; only what routing reads."""
    return SessionVerdict("s", nodes=nodes, judged_nodes=tuple(agreements), agreements=tuple(agreements.values()))


def test_a_place_counts_the_harmonic_mean_of_confidence_and_agreement() -> None:
    tree = merge([chain([7, 8, 9], [0.5, 0.4, 0.3], proposer=0), chain([6], [0.8], proposer=1)])
    found = judge(Score.HARMONIC, ("a", "b"), tree, verdict((0, 1), {0: 1.0, 1: 1.0, 2: 0.6, 3: 0.2}))
    expected = harmonic_mean(0.5, 1.0) + harmonic_mean(0.4, 1.0) + harmonic_mean(0.3, 0.6)
    assert found["a"] == Credit(expected, 3)
    assert found["b"] == Credit(harmonic_mean(0.8, 0.2), 1)


def test_a_drafters_own_token_is_its_surest_or_the_committed_one_if_it_proposed_that_too() -> None:
    tree = TokenTree((5, 6, 7), (ROOT, ROOT, ROOT), (0.7, 0.2, 0.1), (0b01, 0b11, 0b10))
    right = judge(Score.HARMONIC, ("a", "b"), tree, verdict((1,), {0: 0.1, 1: 1.0, 2: 0.9}))
    assert right == {drafter: Credit(harmonic_mean(0.2, 1.0), 1) for drafter in ("a", "b")}
    near = judge(Score.HARMONIC, ("a",), tree, verdict((1,), {0: 0.6, 1: 1.0}))
    assert near == {"a": Credit(harmonic_mean(0.7, 0.6), 1)}
    wrong = judge(Score.HARMONIC, ("a", "b"), tree, verdict((), {0: 0.3, 1: 0.4, 2: 0.9}))
    assert wrong == {"a": Credit(harmonic_mean(0.7, 0.3), 1), "b": Credit(harmonic_mean(0.2, 0.4), 1)}


def test_a_drafters_own_opinion_counts_before_the_joint_confidence() -> None:
    tree = TokenTree((5,), (ROOT,), (0.9,), (0b1011,), ((0.6, 0.2, 0.4),))
    found = judge(Score.HARMONIC, ("a", "b", "mute", "d"), tree, verdict((0,), {0: 1.0}))
    opinions = {"a": 0.6, "b": 0.2, "d": 0.4}
    assert found == {name: Credit(harmonic_mean(sure, 1.0), 1) for name, sure in opinions.items()} | {
        "mute": Credit(0.0, 1)
    }


def test_a_verdict_without_agreements_still_tells_right_from_wrong() -> None:
    tree = merge([chain([7], [0.5], proposer=0), chain([6], [0.9], proposer=1)])
    found = judge(Score.HARMONIC, ("a", "b"), tree, verdict((0,), {}))
    assert found == {"a": Credit(harmonic_mean(0.5, 1.0), 1), "b": Credit(0.0, 1)}


def test_a_drafter_that_said_nothing_has_missed_once() -> None:
    tree = chain([7, 8], [0.5, 0.5], proposer=0)
    assert judge(Score.HARMONIC, ("a", "mute"), tree, verdict((0, 1), {0: 1.0, 1: 1.0}))["mute"] == Credit(0.0, 1)


def test_hits_are_judged_without_agreements() -> None:
    tree = merge([chain([7, 8, 9], [0.5, 0.4, 0.3], proposer=0), chain([6], [0.8], proposer=1)])
    assert judge(Score.HITS, ("a", "b"), tree, verdict((0, 1), {})) == {"a": Credit(2, 3), "b": Credit(0, 1)}


@given(st.floats(0, 1), st.floats(-1, 1))
def test_a_harmonic_mean_is_high_only_where_both_are(confidence: float, agreement: float) -> None:
    mean = harmonic_mean(confidence, agreement)
    low, high = sorted((confidence, max(0.0, agreement)))
    assert low - 1e-9 <= mean <= min(high, 2 * low) + 1e-9
    assert mean == harmonic_mean(agreement, confidence)


def play_against_a_bluffer(score: Score, round_count: int) -> tuple[str, ...]:
    """The choice after rounds of a sure bluffer, whose tokens are always unlike the committed one, against an honest
    drafter that doubts and is right three times in four."""
    dice, route = random.Random(3), Route(SharedScores())
    for _ in range(round_count):
        team = route.choose(("bluffer", "honest"), 2)
        hit = dice.random() < 0.75
        honest = chain([7], [0.4], proposer=team.index("honest"))
        tree = merge([honest, chain([6], [1.0], proposer=team.index("bluffer"))])
        route.note(judge(score, team, tree, verdict((0,) if hit else (), {0: 1.0 if hit else 0.1, 1: 0.15})))
    return route.choose(("bluffer", "honest"), 1)


@pytest.mark.parametrize("score", list(Score))
@pytest.mark.parametrize("round_count", [3, 30])
def test_an_over_confident_stranger_does_not_win(score: Score, round_count: int) -> None:
    assert play_against_a_bluffer(score, round_count) == ("honest",)
