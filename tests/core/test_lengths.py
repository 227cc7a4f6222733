"""Lengths as Minions and DSI choose them: a trend that finds the bottom of a known curve, and the least cover."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core import events as ev
from cosine.core.lengths import WINDOW, Trend, covered_depth
from cosine.core.live import Live
from cosine.core.offers import Offers
from cosine.core.pace import Pace
from cosine.core.routing import Route, SharedScores
from cosine.core.strategy import parse

LENGTH_MAX = 16
UNDER_WAY = 8


class Curve:
    """Verdicts for a hit rate per token and a verifier's pass."""

    def __init__(self, hit_rate: float, base_ms: float, row_ms: float) -> None:
        self.hit_rate = hit_rate
        self.base_ms = base_ms
        self.row_ms = row_ms

    def verify_ms(self, length: int) -> float:
        return self.base_ms + self.row_ms * (1 + length)

    def cost(self, length: int) -> float:
        """Expected milliseconds of verification per committed token."""
        return self.verify_ms(length) / sum(self.hit_rate**count for count in range(length + 1))

    @property
    def best(self) -> float:
        return min(self.cost(length) for length in range(1, LENGTH_MAX + 1))

    def follow(self, trend: Trend, verdicts: int, dice: np.random.Generator) -> list[int]:
        """Lengths over so many verdicts, of which some are always under way with the length before."""
        lengths, under_way = [], deque([trend.length] * UNDER_WAY)
        for _ in range(verdicts):
            length = under_way.popleft()
            accepted = 0
            while accepted < length and dice.random() < self.hit_rate:
                accepted += 1
            trend.note(length, self.verify_ms(length), accepted + 1)
            under_way.append(trend.length)
            lengths.append(trend.length)
        return lengths

    def excess(self, lengths: list[int]) -> float:
        """How much more than at best these lengths cost."""
        return float(np.mean([self.cost(length) for length in lengths])) / self.best - 1.0


CURVES = [Curve(0.7, 15.0, 0.75), Curve(0.9, 25.0, 0.1), Curve(0.5, 15.0, 2.0), Curve(0.2, 10.0, 3.0)]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: f"{curve.hit_rate:g}")
@pytest.mark.parametrize("start", [1, 8, LENGTH_MAX])
def test_the_trend_settles_where_verification_per_token_is_cheapest(curve: Curve, start: int) -> None:
    trend = Trend(LENGTH_MAX, start)
    curve.follow(trend, 1500, np.random.default_rng(1))
    assert curve.excess(curve.follow(trend, 6000, np.random.default_rng(2))) < 0.1


def test_the_trend_follows_a_change_of_what_is_accepted() -> None:
    trend, dice = Trend(LENGTH_MAX), np.random.default_rng(3)
    easy, hard = Curve(0.9, 15.0, 0.75), Curve(0.3, 15.0, 0.75)
    for curve in (easy, hard, easy):
        curve.follow(trend, 1500, dice)
        assert curve.excess(curve.follow(trend, 3000, dice)) < 0.1


def test_an_improving_trend_lengthens_and_a_worsening_one_shortens() -> None:
    trend = Trend(LENGTH_MAX, 4)
    for _ in range(WINDOW):
        trend.note(4, 10.0, 2)
    assert trend.length == 5
    for _ in range(WINDOW):
        trend.note(5, 10.0, 3)
    assert trend.length == 6, "a longer one was better"
    for _ in range(WINDOW):
        trend.note(6, 40.0, 3)
    assert trend.length == 5, "a longer one was worse"


def test_what_was_drafted_before_a_change_drains_before_the_next_decision() -> None:
    trend = Trend(LENGTH_MAX, 4)
    for _ in range(WINDOW):
        trend.note(4, 10.0, 2)
    for _ in range(10 * WINDOW):
        assert trend.note(4, 1000.0, 1) == 5
    for _ in range(WINDOW - 1):
        assert trend.note(5, 10.0, 3) == 5
    assert trend.note(5, 10.0, 3) == 6


@given(st.integers(1, 5), st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 6)), max_size=300))
def test_the_trend_stays_within_its_bounds(length_max: int, verdicts: list[tuple[float, int]]) -> None:
    trend = Trend(length_max)
    for verify_ms, token_count in verdicts:
        before = trend.length
        after = trend.note(before, verify_ms, token_count)
        assert 1 <= after <= length_max
        assert abs(after - before) <= 1


@given(st.floats(0.1, 200), st.floats(0.01, 20), st.integers(1, 8), st.integers(1, 64))
def test_the_covered_depth_is_the_smallest_that_the_verifiers_keep_up_with(
    verify_ms: float, draft_step_ms: float, verifier_count: int, depth_max: int
) -> None:
    def covered(depth: int) -> bool:
        return math.ceil(verify_ms / (depth * draft_step_ms)) <= verifier_count

    found = covered_depth(verify_ms, draft_step_ms, verifier_count, depth_max)
    assert 1 <= found <= depth_max
    assert covered(found) or found == depth_max
    assert not any(covered(depth) for depth in range(1, found))


def test_more_verifiers_cover_shorter_stretches() -> None:
    depths = [covered_depth(25.0, 2.5, count, 64) for count in (1, 2, 3, 5, 10)]
    assert depths == [10, 5, 4, 2, 1]
    assert covered_depth(25.0, 0.0, 4, 8) == 8


def minions(strategy: str) -> Live:
    admission = ev.Admission("r", 1, "g", (1,), 1, 99)
    live = Live(admission, "s-1", parse(strategy), Route(SharedScores()), [1], 0.0)
    live.depth = parse(strategy).depth // 2
    return live


def offered_depth(offers: Offers, strategy: str) -> int:
    (depth,) = offers.make([minions(strategy)], 3, 1, 256).depths
    return depth


def test_what_one_text_of_a_preset_teaches_holds_for_all_and_nothing_is_kept_by_text() -> None:
    offers = Offers(Pace())
    start = offered_depth(offers, "minions")
    for number in range(20 * WINDOW):
        offers.note_verdict(minions(f"minions:value_min={number / 1e5}"), 10.0, 1 + number % 2)
    assert offered_depth(offers, "minions") != start
    assert len(offers._trends) == 1


def test_another_bound_on_the_length_has_a_trend_of_its_own() -> None:
    offers = Offers(Pace())
    assert offered_depth(offers, "minions") == 4
    assert offered_depth(offers, "minions:depth=2") == 1
