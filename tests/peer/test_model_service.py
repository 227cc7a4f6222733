"""Start-up of a process that holds a model: what it measures, and when it would mean nothing."""

from __future__ import annotations

from cosine.engine.loading import open_engine
from cosine.engine.measuring import SHAPES
from cosine.peer.model_service import measured
from cosine.peer.model_settings import ModelSettings

BASE_MS, ROW_MS = 2.0, 0.1


def settings(pace: str = "") -> ModelSettings:
    return ModelSettings(model="toy:seed=1", pace=pace, _cli_parse_args=False)  # type: ignore[call-arg]  # an argument of pydantic-settings


def test_a_toy_at_full_speed_is_not_measured() -> None:
    asked = settings()
    engine = open_engine(asked.model, asked.engine_options(), asked.engine_limits())
    assert measured(engine, asked) is None


def test_a_paced_toy_is_measured_no_faster_than_its_pace() -> None:
    asked = settings(f"{BASE_MS},{ROW_MS}")
    model = measured(open_engine(asked.model, asked.engine_options(), asked.engine_limits()), asked)
    assert model is not None
    rows = sum(sessions * rows for sessions, rows in SHAPES) / len(SHAPES)  # there the line meets the passes' mean
    assert model.base_ms + model.row_ms * rows >= BASE_MS + ROW_MS * rows
