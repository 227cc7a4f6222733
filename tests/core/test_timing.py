"""Time models: what takes time is found and told apart, a stall is not taken for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.timing import DraftLoad, DraftModel, LineModel


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


def test_cached_tokens_are_told_apart_from_rows() -> None:
    model, dice = LineModel(base_ms=8.0, slope_ms=0.3), np.random.default_rng(4)
    for _ in range(400):
        rows, kilotokens = float(dice.integers(1, 64)), float(dice.uniform(0, 16))
        model.note(rows, 20.0 + 0.5 * rows + 1.5 * kilotokens, kilotokens)
    assert model.kilotoken_ms == pytest.approx(1.5, rel=0.05)
    assert model.predict(32, 8.0) == pytest.approx(48.0, rel=0.02)
    assert model.predict(32) == pytest.approx(36.0, rel=0.04)


def test_cached_tokens_that_cost_nothing_are_laid_nothing_to() -> None:
    model, dice = LineModel(base_ms=8.0, slope_ms=0.3), np.random.default_rng(4)
    for _ in range(400):
        rows, kilotokens = float(dice.integers(1, 64)), float(dice.uniform(0, 16))
        model.note(rows, 20.0 + 0.5 * rows, kilotokens)
    assert model.kilotoken_ms < 0.02


def test_a_measurement_is_believed_until_much_else_is_seen() -> None:
    seeded, guessed = LineModel.seeded(15.0, 0.75), LineModel(base_ms=15.0, slope_ms=0.75)
    for model in (seeded, guessed):
        for _ in range(3):
            model.note(8.0, 42.0)
    assert abs(seeded.predict(8) - 21.0) < abs(guessed.predict(8) - 21.0) / 2
    for _ in range(300):
        seeded.note(8.0, 42.0)
    assert seeded.predict(8) == pytest.approx(42.0, rel=0.02)


def test_a_seeded_model_knows_a_stall_at_once() -> None:
    model = LineModel.seeded(15.0, 0.75)
    model.note(8.0, 30_000.0)
    assert model.predict(8) < 26.0


# -- drafting

Truth = Callable[[DraftLoad], tuple[float, float]]


def plan(crew: int, depth: int, sessions: int, fusion_interval: int = 8) -> DraftLoad:
    """`sessions` that are each drafted for by the same `crew` drafters."""
    return DraftLoad(
        -(-depth // fusion_interval), depth, sessions * depth, (crew - 1) * depth, (crew - 1) * sessions * depth
    )


def on_machines_of_their_own(load: DraftLoad) -> tuple[float, float]:
    """Took and spent: a step of 2.5 ms whatever its rows, an exchange of 0.4."""
    spent_ms = 2.5 * load.pass_count + 0.002 * load.row_count
    return 0.4 * load.exchange_count + spent_ms, spent_ms


def on_shared_processors(load: DraftLoad) -> tuple[float, float]:
    """A step of 0.4 ms and 0.035 per session, in which the others' steps take time too; an exchange of 0.9."""
    spent_ms = 0.4 * (load.pass_count + 0.75 * load.pass_extra) + 0.035 * (load.row_count + 0.75 * load.row_extra)
    return 0.9 * load.exchange_count + spent_ms, spent_ms


def one_after_the_other(load: DraftLoad) -> tuple[float, float]:
    """Drafters that share one device: each reports its own work, and the last has waited for all."""
    spent_ms = 0.4 * load.pass_count + 0.035 * load.row_count
    return 0.5 * load.exchange_count + spent_ms + 0.4 * load.pass_extra + 0.035 * load.row_extra, spent_ms


def observed(truth: Truth, crews: Sequence[int], model: DraftModel | None = None, noise: float = 0.05) -> DraftModel:
    """A model that has seen 200 plans."""
    model, dice = model or DraftModel(), np.random.default_rng(6)
    for _ in range(200):
        load = plan(
            int(dice.choice(crews)), int(dice.integers(1, 9)), int(dice.integers(1, 17)), int(dice.choice([1, 8]))
        )
        factor = float(dice.normal(1, noise))
        took_ms, spent_ms = truth(load)
        model.note(load, took_ms * factor, spent_ms * factor)
    return model


TRUTHS = [on_machines_of_their_own, on_shared_processors, one_after_the_other]


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("crew", [1, 2, 4])
def test_drafting_is_predicted_on_any_park_of_machines(truth: Truth, crew: int) -> None:
    model = observed(truth, crews=(1, 2, 5))
    for depth, sessions in ((2, 1), (6, 1), (4, 8), (8, 16)):
        load = plan(crew, depth, sessions)
        assert model.predict(load) == pytest.approx(truth(load)[0], rel=0.2, abs=0.3)


def test_drafters_that_slow_one_another_down_are_told_from_those_that_do_not() -> None:
    assert [observed(truth, crews=(1, 2, 5)).apart for truth in TRUTHS] == [True, False, False]


def test_what_further_drafters_cost_is_known_without_ever_drafting_alone_where_a_measurement_came_first() -> None:
    for truth, seed in ((on_machines_of_their_own, (2.5, 0.002)), (one_after_the_other, (0.4, 0.035))):
        model = observed(truth, crews=(2,), model=DraftModel.seeded(*seed))
        alone = plan(1, 5, 4)
        assert model.predict(alone) == pytest.approx(truth(alone)[0], rel=0.2)


def test_one_stalled_plan_hardly_moves_what_drafting_is_thought_to_take() -> None:
    model, load = observed(on_machines_of_their_own, crews=(1, 2)), plan(2, 4, 4)
    before = model.predict(load)
    model.note(load, 20_000.0, 50.0)
    assert model.predict(load) < 1.3 * before


def test_a_plan_without_an_exchange_teaches_nothing() -> None:
    model = DraftModel()
    model.note(DraftLoad(), 50.0, 0.0)
    assert model == DraftModel()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8), st.floats(0, 1e5), st.floats(0, 1e5)), max_size=40))
def test_no_part_of_drafting_ever_takes_negative_time(seen: list[tuple[int, int, float, float]]) -> None:
    model = DraftModel()
    for crew, depth, took_ms, spent_ms in seen:
        model.note(plan(crew, depth, 3), took_ms, spent_ms)
    assert all(price >= 0.0 and np.isfinite(price) for price in model.prices)


def test_drafters_are_known_to_be_apart_only_after_a_while_and_only_where_others_cost_nothing() -> None:
    apart, shared = DraftModel(), DraftModel()
    assert not apart.apart, "nothing is known yet"
    for number in range(120):
        steps, others = 1 + number % 6, number % 4
        load = DraftLoad(1.0, steps, steps, steps * others, steps * others)
        apart.note(load, 0.5 + 2.0 * steps, 2.0 * steps)
        shared.note(load, 0.5 + 2.0 * steps * (1 + others), 2.0 * steps * (1 + others))
    assert (apart.apart, shared.apart) == (True, False)
