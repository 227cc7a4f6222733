"""Calibration: a confidence is worth what was observed of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.calibration import BIN_EDGES, CONSENT_SHARE, Calibration, Consent, Record, bin_of

CONFIDENCES = st.floats(0, 1)


def teach(calibration: Calibration, confidence: float, hits: int, of: int, times: int) -> None:
    for _ in range(times):
        for turn in range(of):
            calibration.note(confidence, turn < hits)


@given(CONFIDENCES)
def test_nothing_observed_leaves_the_confidence_as_it_is(confidence: float) -> None:
    assert Calibration().estimator()(confidence) == pytest.approx(confidence)


@pytest.mark.parametrize(("confidence", "hits"), [(0.95, 1), (0.05, 9), (0.5, 5), (1.0, 0), (0.0, 10)])
def test_an_estimate_becomes_the_observed_acceptance(confidence: float, hits: int) -> None:
    calibration = Calibration()
    teach(calibration, confidence, hits, of=10, times=100)
    assert calibration.estimator()(confidence) == pytest.approx(hits / 10, abs=0.03)


def test_one_surprise_does_not_turn_an_estimate() -> None:
    calibration = Calibration()
    calibration.note(0.95, hit=False)
    assert 0.75 < calibration.estimator()(0.95) < 0.95


def test_confidences_of_other_sizes_are_left_alone() -> None:
    calibration = Calibration()
    teach(calibration, 0.95, 0, of=1, times=100)
    assert calibration.estimator()(0.45) == pytest.approx(0.45)


def test_a_drafter_that_changes_is_believed_anew() -> None:
    calibration = Calibration()
    teach(calibration, 0.8, 0, of=1, times=3000)
    teach(calibration, 0.8, 1, of=1, times=1500)
    assert calibration.estimator()(0.8) > 0.85


@given(st.lists(st.tuples(CONFIDENCES, st.booleans()), max_size=60), CONFIDENCES)
def test_an_estimate_is_a_chance_whatever_was_seen(seen: list[tuple[float, bool]], confidence: float) -> None:
    calibration = Calibration()
    for raw, hit in seen:
        calibration.note(raw, hit)
    assert 0.0 <= calibration.estimator()(confidence) <= 1.0


def test_every_confidence_has_its_bin_and_edges_open_the_next() -> None:
    assert [bin_of(edge) for edge in (0.0, *BIN_EDGES)] == list(range(len(BIN_EDGES) + 1))
    assert bin_of(1.0) == len(BIN_EDGES)
    assert all(bin_of(low) <= bin_of(high) for low, high in itertools.pairwise(step / 50 for step in range(51)))


def test_a_session_where_a_drafter_does_worse_than_usual_is_noticed_and_forgotten() -> None:
    record = Record()
    assert record.factor == 1.0
    for _ in range(50):
        record.note(0.8, hit=False)
    assert record.factor < 0.2
    for _ in range(300):
        record.note(0.8, hit=True)
    assert record.factor == pytest.approx(1.25, abs=0.1)


@given(CONFIDENCES, st.floats(0, 3))
def test_an_estimator_says_what_estimates_say_times_a_factor_and_never_more_than_certain(
    confidence: float, factor: float
) -> None:
    calibration = Calibration()
    teach(calibration, 0.95, hits=7, of=10, times=3)
    teach(calibration, 0.3, hits=9, of=10, times=3)
    expected = min(1.0, factor * calibration.estimator()(confidence))
    assert calibration.estimator(factor)(confidence) == pytest.approx(expected)


def test_what_few_of_a_crew_propose_is_worth_less_where_it_seldom_comes() -> None:
    consent = Consent()
    for turn in range(200):
        consent.note(2, 2, 0.8, turn % 10 < 8)
        consent.note(1, 2, 0.5, turn % 10 < 2)
        consent.note(0, 2, 0.3, False)
    none, one, both = consent.factors(2)
    assert both == pytest.approx(1.0, abs=0.05)
    assert one == pytest.approx(0.4**CONSENT_SHARE, abs=0.05)
    assert none < 0.1


def test_crews_of_different_sizes_are_judged_apart_and_unknown_ones_as_they_say() -> None:
    consent = Consent()
    for _ in range(100):
        consent.note(1, 2, 0.5, False)
    assert consent.factors(1) == [1.0, 1.0]
    assert consent.factors(3) == [1.0] * 4
    assert consent.factors(2)[1] < 0.4
