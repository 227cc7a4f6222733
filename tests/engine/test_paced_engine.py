"""The paced engine: a profile's time for real work, what could not keep up counted, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from cosine.core.picking import RowRule
from cosine.core.sampling import GREEDY
from cosine.core.tree import TokenTree
from cosine.engine.base import EngineLimits, Logits, Segment, Stopped
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine
from cosine.engine.verifying import VerifyItem, verify

SOURCE = "toy:seed=1"
PACE = Pace(base_ms=10.0, row_ms=0.5, kilotoken_ms=100.0)
FIRST = Segment("s", 0, (1, 2, 3, 4))  # 4 rows, nothing cached: 12 ms
SECOND = Segment("s", 4, (5,), TokenTree((6, 7), (-1, 0)))  # 3 rows, 4 cached: 11.9 ms


class Clock:
    """Time that passes while somebody sleeps, or computes; a sleep may take longer than asked for."""

    def __init__(self, overshoot_s: float = 0.0) -> None:
        self.now = 0.0
        self.overshoot_s = overshoot_s

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.overshoot_s


class Busy(ToyEngine):
    """A toy whose passes, and whatever comes after them, take time."""

    def __init__(self, clock: Clock, pass_s: float, after_s: float = 0.0) -> None:
        super().__init__(SOURCE, "", EngineLimits())
        self._clock = clock
        self._pass_s = pass_s
        self._after_s = after_s

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        self._clock.now += self._pass_s
        return super().forward(segments, stop)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        self._clock.now += self._after_s
        super().keep(session_id, nodes)


def paced(clock: Clock, pass_s: float = 0.0, after_s: float = 0.0, pace: Pace = PACE) -> PacedEngine:
    return PacedEngine(Busy(clock, pass_s, after_s), pace, clock, clock.sleep)


def test_a_pass_takes_the_profiles_time_whatever_the_real_one_took() -> None:
    for pass_s in (0.0, 0.004, 0.011):
        clock = Clock()
        engine = paced(clock, pass_s)
        engine.forward([FIRST])
        assert clock.now == pytest.approx(0.012)
        engine.keep("s", ())
        engine.forward([SECOND])
        assert clock.now == pytest.approx(0.012 + 0.0119)
        assert (engine.pass_count, engine.overrun_count, engine.late_s) == (2, 0, 0.0)


def test_a_pass_that_cannot_keep_up_is_counted_with_its_lateness() -> None:
    clock = Clock()
    engine = paced(clock, pass_s=0.020)
    engine.forward([FIRST])
    assert clock.now == pytest.approx(0.020)
    assert (engine.pass_count, engine.overrun_count) == (1, 1)
    assert engine.late_s == pytest.approx(0.008)


def test_what_follows_a_pass_is_taken_from_the_next_ones_time() -> None:
    clock = Clock()
    engine = paced(clock, pass_s=0.001, after_s=0.003, pace=Pace(10.0))
    for number in range(1, 11):
        engine.forward([Segment("s", 0, (1,))])
        engine.keep("s", ())
        assert clock.now == pytest.approx(number * 0.010 + 0.003)
    assert engine.overrun_count == 0


def test_sleeping_too_long_does_not_add_up() -> None:
    clock = Clock(overshoot_s=0.002)
    engine = paced(clock, pace=Pace(10.0))
    for _ in range(10):
        engine.forward([Segment("s", 0, (1,))])
    assert clock.now == pytest.approx(10 * 0.010 + 0.002)


def test_picks_belong_to_the_pass_they_are_read_from() -> None:
    clock = Clock()

    class SlowPicks(ToyEngine):
        def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
            return Slow(super().forward(segments, stop))

    class Slow:
        def __init__(self, logits: Logits) -> None:
            self.row, self.children = logits.row, logits.children
            self._logits = logits

        def picks(self, rules: Sequence[RowRule]) -> list[int]:
            clock.now += 0.003
            return self._logits.picks(rules)

    engine = PacedEngine(SlowPicks(SOURCE, "", EngineLimits()), Pace(10.0), clock, clock.sleep)
    engine.forward([FIRST]).picks([RowRule(GREEDY, 4)])
    engine.forward([Segment("s", 4, (5,))])
    assert clock.now == pytest.approx(0.020)


def test_a_pass_that_is_no_longer_wanted_ends_within_a_part_of_its_time() -> None:
    clock = Clock()
    engine = paced(clock, pass_s=0.001, pace=Pace(160.0))
    engine.forward([FIRST])
    engine.keep("s", ())
    start = clock.now
    with pytest.raises(Stopped):
        engine.forward([SECOND], stop=lambda: clock.now >= start + 0.050)
    assert clock.now - start == pytest.approx(0.050, abs=0.010)
    assert list(engine.tokens("s")) == [1, 2, 3, 4, 5]
    assert engine.pass_count == 1


@pytest.mark.parametrize("overshoot_s", [0.0, 0.0005, 0.001, 0.004])
def test_a_pass_that_may_be_stopped_but_is_not_takes_its_time(overshoot_s: float) -> None:
    clock = Clock(overshoot_s)
    engine = paced(clock, pass_s=0.001, pace=Pace(160.0))
    for _ in range(50):
        engine.forward([Segment("s", 0, (1,))], stop=lambda: False)
    assert clock.now == pytest.approx(50 * 0.160, abs=0.010)
    assert (engine.pass_count, engine.overrun_count) == (50, 0)


def test_verdicts_are_those_of_the_engine_alone() -> None:
    clock = Clock()
    alone, at_a_pace = ToyEngine(SOURCE, "", EngineLimits()), paced(clock)
    for base_length, token_ids in ((0, (10, 20, 30)), (3, (40,))):
        item = VerifyItem("s", base_length, token_ids, TokenTree((50, 60), (-1, 0)))
        assert verify(at_a_pace, [item]) == verify(alone, [item])
    assert at_a_pace.card == replace(alone.card, device="paced")
    assert at_a_pace.limits == alone.limits
    assert at_a_pace.tokens("s") == alone.tokens("s")
    assert at_a_pace.agreement([1, 2], [1, 3]) == alone.agreement([1, 2], [1, 3])
    at_a_pace.close(["s"])
    assert len(at_a_pace.tokens("s")) == 0
