"""Time models: a line is found, a stall is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.timing import LineModel, RateModel


def learned(base_ms: float, slope_ms: float, count: int = 400, noise: float = 0.0) -> LineModel:
    model, dice = LineModel(base_ms=1.0, slope_ms=1.0), np.random.default_rng(3)
    for _ in range(count):
        size = float(dice.integers(1, 64))
        model.note(size, (base_ms + slope_ms * size) * float(dice.normal(1, noise)))
    return model


def test_the_prior_speaks_until_something_is_seen() -> None:
    assert LineModel(base_ms=8.0, slope_ms=0.5).predict(10) == 13.0


@pytest.mark.parametrize(("base_ms", "slope_ms"), [(20.0, 0.3), (0.0, 2.0), (5.0, 0.0), (300.0, 10.0)])
def test_the_line_behind_the_observations_is_found(base_ms: float, slope_ms: float) -> None:
    model = learned(base_ms, slope_ms)
    assert model.predict(1) == pytest.approx(base_ms + slope_ms, rel=0.02, abs=0.1)
    assert model.predict(64) == pytest.approx(base_ms + 64 * slope_ms, rel=0.02, abs=0.1)


def test_noise_on_the_observations_averages_out() -> None:
    model = learned(20.0, 0.5, noise=0.1)
    assert model.predict(32) == pytest.approx(36.0, rel=0.06)


def test_a_stall_hardly_moves_a_model_that_has_seen_something() -> None:
    model = learned(20.0, 0.5)
    model.note(32.0, 30_000.0)
    assert model.predict(32) == pytest.approx(36.0, rel=0.15)


def test_a_lasting_change_is_followed() -> None:
    model = learned(20.0, 0.5)
    for turn in range(300):
        model.note(float(1 + turn % 64), 200.0 + 5.0 * (1 + turn % 64))
    assert model.predict(32) == pytest.approx(360.0, rel=0.1)


def test_one_size_alone_is_predicted_as_it_was_seen() -> None:
    model = LineModel(base_ms=8.0, slope_ms=0.3)
    for _ in range(300):
        model.note(5.0, 50.0)
    assert model.predict(5) == pytest.approx(50.0, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 1e6)), max_size=50))
def test_neither_a_pass_nor_a_row_ever_takes_negative_time(seen: list[tuple[int, float]]) -> None:
    model = LineModel(base_ms=8.0, slope_ms=0.3)
    for size, took_ms in seen:
        model.note(float(size), took_ms)
    assert model.base_ms >= 0.0
    assert model.slope_ms >= 0.0
    assert np.isfinite(model.predict(64))


def test_a_rate_is_found_whatever_the_first_guess() -> None:
    for guess in (0.001, 0.04, 5.0):
        model = RateModel(base_ms=1.0, rate_ms=guess)
        for turn in range(400):
            size = float(10 + turn % 50)
            model.note(size, took_ms=1.0 + 0.2 * size, spent_ms=0.2 * size)
        assert model.predict(40) == pytest.approx(9.0, rel=0.1)
