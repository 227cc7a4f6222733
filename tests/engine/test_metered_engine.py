"""A metered engine computes what the engine computes, and learns what its passes take from whole jobs."""

from __future__ import annotations

import pytest
from sleeping_clock import Clock

from cosine.core.plan import DraftItem
from cosine.core.timing import LineModel
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.drafting import draft
from cosine.engine.metered import MeteredEngine
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine

SOURCE = "toy:seed=1"
PACE = Pace(base_ms=10.0, row_ms=0.5, kilotoken_ms=40.0)
CONTEXT = tuple(range(8, 72))


def metered(clock: Clock, base_ms: float = 3.0, row_ms: float = 0.0) -> MeteredEngine:
    """A toy at `PACE`, believed to be faster."""
    paced = PacedEngine(ToyEngine(SOURCE, "", EngineLimits()), PACE, clock, clock.sleep)
    return MeteredEngine(paced, LineModel.seeded(base_ms, row_ms), clock)


def item(name: str, step_count: int, beam: int = 1) -> DraftItem:
    return DraftItem(name, 0, CONTEXT, step_count, width=3, beam=beam)


def test_what_passes_take_is_learned_from_jobs_of_many_shapes() -> None:
    engine = metered(Clock())
    for turn in range(300):
        name, steps, beam = f"s{turn}", 1 + turn % 7, 1 + turn % 5
        engine.learn_from(lambda name=name, steps=steps, beam=beam: draft(engine, [item(name, steps, beam)]))
        engine.close([name])
    learned = engine.passes
    assert engine.note_count == 300
    for rows, kilotokens in ((1, 0.06), (8, 0.06), (40, 0.0)):
        expected_ms = PACE.base_ms + PACE.row_ms * rows + PACE.kilotoken_ms * kilotokens
        assert learned.predict(rows, kilotokens) == pytest.approx(expected_ms, rel=0.05)


def test_a_job_is_its_mean_pass() -> None:
    clock, model = Clock(), LineModel.seeded(11.0, 0.0)
    engine = MeteredEngine(metered(clock), model, clock)
    engine.learn_from(lambda: draft(engine, [item("s", 4)]))
    other = LineModel.seeded(11.0, 0.0)
    rows = (len(CONTEXT) + 3) / 4
    cached = 3 * len(CONTEXT) + 1 + 2  # the second to fourth pass read the context, and what the passes before added
    other.note(rows, PACE.base_ms + PACE.row_ms * rows + PACE.kilotoken_ms * cached / 4 / 1000, cached / 4 / 1000)
    assert (model.base_ms, model.slope_ms) == pytest.approx((other.base_ms, other.slope_ms))


def test_a_job_without_a_pass_says_nothing() -> None:
    engine = metered(Clock())
    (result,) = engine.learn_from(lambda: draft(engine, [DraftItem("unknown", 5, (1,), 2)]))
    assert not len(result.tree)
    assert engine.note_count == 0
    assert (engine.passes.base_ms, engine.passes.slope_ms) == (3.0, 0.0)


def test_a_job_that_fails_says_nothing() -> None:
    engine = metered(Clock())

    def fail() -> None:
        engine.forward([Segment("s", 0, (1,))])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.learn_from(fail)
    assert engine.note_count == 0


def test_passes_between_jobs_count_for_none() -> None:
    clock = Clock()
    engine = metered(clock, base_ms=PACE.base_ms, row_ms=PACE.row_ms)
    for _ in range(5):
        engine.forward([Segment("idle", 0, CONTEXT)])
        engine.keep("idle", ())
    engine.learn_from(lambda: draft(engine, [item("s", 1)]))
    assert engine.passes.predict(len(CONTEXT)) == pytest.approx(PACE.base_ms + PACE.row_ms * len(CONTEXT), rel=0.05)


def test_the_engine_itself_is_unchanged() -> None:
    plain, engine = ToyEngine(SOURCE, "", EngineLimits()), metered(Clock())
    assert draft(engine, [item("s", 5, 2)]) == draft(plain, [item("s", 5, 2)])
    assert engine.tokens("s") == plain.tokens("s")
    assert (engine.card.model_id, engine.limits) == (plain.card.model_id, plain.limits)
    assert engine.agreement([1, 2], [3, 2]) == plain.agreement([1, 2], [3, 2])
    engine.close(["s"])
    assert engine.tokens("s") == ()
