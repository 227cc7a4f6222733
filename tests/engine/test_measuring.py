"""The start-up measurement: it finds an engine's pace, keeps to its time, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sleeping_clock import Clock

from cosine.engine.base import EngineLimits, Logits, Segment
from cosine.engine.measuring import BUDGET_S, ROUNDS_MAX, SHAPES, TimeModel, fit, measure
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine

STALL_S = 0.3
MS = st.floats(0.0, 1000.0)


class Watched(ToyEngine):
    """A toy that writes down the sessions and rows of every pass, and may stall in one of them."""

    def __init__(self, clock: Clock, limits: EngineLimits = EngineLimits(), stall: int = -1) -> None:
        super().__init__("toy:seed=1", "", limits)
        self.passes: list[tuple[int, int]] = []
        self._clock = clock
        self._stall = stall

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        if len(self.passes) == self._stall:
            self._clock.sleep(STALL_S)
        self.passes.append((len(segments), sum(len(part.token_ids) + len(part.tree) for part in segments)))
        return super().forward(segments, stop)


def measured(pace: Pace, limits: EngineLimits = EngineLimits(), stall: int = -1) -> tuple[TimeModel, Watched]:
    clock = Clock()
    engine = Watched(clock, limits, stall)
    return measure(PacedEngine(engine, pace, clock, clock.sleep), clock), engine


@pytest.mark.parametrize(("base_ms", "row_ms"), [(0.4, 0.03), (15.0, 0.7), (300.0, 0.0)])
def test_the_pace_of_an_engine_is_found(base_ms: float, row_ms: float) -> None:
    model, _ = measured(Pace(base_ms, row_ms))
    assert (model.base_ms, model.row_ms) == pytest.approx((base_ms, row_ms))


def test_a_stall_is_not_taken_for_the_pace() -> None:
    model, engine = measured(Pace(10.0, 0.5), stall=5)
    assert len(engine.passes) > 1 + 2 * len(SHAPES), "there is a median to speak of"
    assert (model.base_ms, model.row_ms) == pytest.approx((10.0, 0.5))


def test_every_shape_runs_equally_often_and_a_slow_engine_less_often() -> None:
    _, quick = measured(Pace(1.0, 0.1))
    _, slow = measured(Pace(1000 * BUDGET_S))
    assert sorted(quick.passes[1:]) == sorted(
        (count, count * rows) for count, rows in SHAPES for _ in range(ROUNDS_MAX)
    )
    assert len(slow.passes) == 1 + len(SHAPES)


def test_the_sessions_of_a_measurement_are_closed() -> None:
    _, engine = measured(Pace(1.0))
    assert not engine._sessions
    assert not engine._hanging


@pytest.mark.parametrize(
    "limits", [EngineLimits(sessions_max=1), EngineLimits(tree_nodes_max=1), EngineLimits(tokens_max=16)], ids=str
)
def test_a_small_engine_is_measured_within_its_bounds(limits: EngineLimits) -> None:
    model, engine = measured(Pace(10.0, 0.5), limits)
    assert (model.base_ms, model.row_ms) == pytest.approx((10.0, 0.5))
    assert all(sessions <= limits.sessions_max for sessions, _ in engine.passes)


@given(MS, MS)
def test_a_line_through_its_own_points_is_that_line(base_ms: float, row_ms: float) -> None:
    model = fit([(rows, base_ms + row_ms * rows) for rows in (1, 4, 8, 16)])
    assert (model.base_ms, model.row_ms) == pytest.approx((base_ms, row_ms), abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 64), MS), min_size=1))
def test_neither_coefficient_is_ever_negative(points: list[tuple[float, float]]) -> None:
    model = fit(points)
    assert model.base_ms >= 0.0
    assert model.row_ms >= 0.0


def test_passes_that_get_quicker_with_rows_have_no_row_time() -> None:
    assert fit([(1, 20.0), (8, 10.0)]) == TimeModel(15.0, 0.0)
