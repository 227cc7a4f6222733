"""Feedback between drafting and verifying: it gives way to backlog and to idling, and comes to rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.feedback import Feedback
from cosine.core.goodput import Shape

FULL = Shape(8, drafter_count=4, beam=2, width=3, node_budget=24)
SETTLED_AFTER = 20


@dataclass
class Ring:
    """Requests that draft, wait, are verified in batches, and draft again: no dice, no losses."""

    verify_ms: Callable[[int, Shape], float]
    draft_ms: Callable[[Shape], float]
    batch_max: int = 8
    feedback: Feedback = field(default_factory=Feedback)
    now: float = 0.0
    due: list[float] = field(default_factory=list)

    def play(self, request_count: int, rounds: int) -> list[int]:
        """The level after each of so many batches with so many requests."""
        self.due = sorted(self.due)[:request_count]
        self._start(request_count - len(self.due))
        return [self._batch() for _ in range(rounds)]

    def _start(self, count: int) -> None:
        self.due += [self.now + self.draft_ms(self.feedback.limit(FULL))] * count

    def _batch(self) -> int:
        self.due.sort()
        idle_ms = max(0.0, self.due[0] - self.now)
        self.now += idle_ms
        ready = [time for time in self.due if time <= self.now][: self.batch_max]
        self.due = self.due[len(ready) :]
        busy_ms = self.verify_ms(len(ready), self.feedback.limit(FULL))
        waiting_ms = sum(self.now - time for time in ready) / len(ready)
        self.now += busy_ms
        level = self.feedback.note(idle_ms, waiting_ms, busy_ms)
        self._start(len(ready))
        return level


def verify(base_ms: float, row_ms: float) -> Callable[[int, Shape], float]:
    return lambda count, shape: base_ms + row_ms * count * (1 + shape.node_budget)


def parallel(pass_ms: float) -> Callable[[Shape], float]:
    return lambda shape: 0.4 + 8 * pass_ms


def shared(pass_ms: float) -> Callable[[Shape], float]:
    return lambda shape: 1.0 + 8 * pass_ms * shape.drafter_count * (1 + 0.1 * shape.beam)


MACHINES = {
    "four A100 and machines of their own": (verify(25.0, 0.1), parallel(2.5)),
    "two cores for all": (verify(15.0, 0.75), shared(0.4)),
    "slow drafters": (verify(10.0, 0.05), parallel(6.0)),
    "as much drafting as verifying": (verify(20.0, 0.3), shared(2.0)),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("batch_max", [4, 8, 16])
def test_a_step_of_load_is_answered_within_twenty_rounds_and_then_there_is_rest(machine: str, batch_max: int) -> None:
    ring = Ring(*MACHINES[machine], batch_max)
    for request_count in (1, 16, 1, 16):
        levels = ring.play(request_count, 200)
        late = levels[SETTLED_AFTER:]
        assert max(late) - min(late) <= 1
        changes = sum(before != after for before, after in itertools.pairwise(late))
        assert changes <= len(late) / 20


def test_a_backlog_lowers_what_may_be_drafted_and_a_lone_request_gets_all_of_it() -> None:
    ring = Ring(*MACHINES["two cores for all"])
    assert ring.play(1, 40)[-1] == 0
    assert ring.feedback.limit(FULL).drafter_count == 4
    assert ring.play(16, 40)[-1] < 0
    few = ring.feedback.limit(FULL)
    assert (few.drafter_count, few.beam, few.node_budget) < (4, 2, 24)
    assert ring.play(1, 40)[-1] == 0
    assert ring.feedback.limit(FULL).node_budget == 24


def test_small_differences_move_nothing() -> None:
    feedback = Feedback(level=-2)
    for turn in range(500):
        feedback.note(idle_ms=1.0 if turn % 2 else 0.0, waiting_ms=1.0, busy_ms=10.0)
    assert feedback.level == -2


def test_a_balance_that_no_level_meets_is_swung_around_ever_more_rarely() -> None:
    feedback, levels = Feedback(level=-2), []
    for _ in range(400):
        much = feedback.level >= -2
        levels.append(feedback.note(0.0 if much else 6.0, 6.0 if much else 0.5, 10.0))
    assert set(levels) == {-3, -2}
    changes = [turn for turn, (before, after) in enumerate(itertools.pairwise(levels)) if before != after]
    gaps = [after - before for before, after in itertools.pairwise(changes)]
    assert gaps[-1] > 2 * gaps[0]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100)), max_size=200))
def test_whatever_happens_something_may_be_drafted_and_never_more_than_the_strategy_says(
    seen: list[tuple[float, float, float]],
) -> None:
    feedback = Feedback()
    for idle_ms, waiting_ms, busy_ms in seen:
        before = feedback.level
        assert abs(feedback.note(idle_ms, waiting_ms, busy_ms) - before) <= 1
        shape = feedback.limit(FULL)
        assert 1 <= shape.drafter_count <= 4
        assert 1 <= shape.beam <= 2
        assert 1 <= shape.node_budget <= 24
        assert (shape.depth, shape.width, shape.crew_full, shape.beam_full) == (8, 3, 4, 2)
