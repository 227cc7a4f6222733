"""Alarms: calls in order of time, none of an owner that is gone, and nothing kept for those who have left."""

from __future__ import annotations

import gc

import pytest
from test_scheduler_machine import Trace, ids, verdict

from cosine.core.alarms import SWEEP_COUNT_MIN, Alarms
from cosine.core.live import Live
from cosine.core.plan import DraftedTree
from cosine.core.tree import chain

REQUEST_COUNT = 500


class Said:
    """Alarms whose calls write down a word."""

    def __init__(self) -> None:
        self.alarms = Alarms()
        self._words: list[str] = []

    def set(self, time: float, word: str, owner: str = "") -> None:
        self.alarms.set(time, lambda _now: self._words.append(word), owner)

    def by(self, now: float) -> list[str]:
        """What calls say that are due now."""
        for call in self.alarms.due(now):
            call(now)
        words, self._words = self._words, []
        return words


def test_calls_are_made_once_in_order_of_time_and_equal_ones_as_they_were_set() -> None:
    said = Said()
    for time, word in ((2.0, "b"), (1.0, "a"), (2.0, "c"), (9.0, "d")):
        said.set(time, word)
    assert said.alarms.first == 1.0
    assert said.by(2.0) == ["a", "b", "c"]
    assert said.by(2.0) == []
    assert said.alarms.first == 9.0


def test_calls_of_an_owner_that_is_forgotten_are_not_made() -> None:
    said = Said()
    said.set(1.0, "hers", "she")
    said.set(1.0, "his", "he")
    said.set(1.0, "nobody's")
    said.alarms.forget("she")
    assert said.by(1.0) == ["his", "nobody's"]


@pytest.mark.parametrize("alarm_count", [1, 2, 20])
def test_owners_that_come_and_go_leave_a_bounded_number_behind(alarm_count: int) -> None:
    said = Said()
    said.set(1000.0, "the end")
    for number in range(1000):
        for _ in range(alarm_count):
            said.set(600.0, "late", f"s-{number}")
        said.alarms.forget(f"s-{number}")
        assert len(said.alarms) <= 2 * SWEEP_COUNT_MIN + 2 * alarm_count
    assert said.by(2000.0) == ["the end"]


def test_a_scheduler_keeps_nothing_of_requests_that_have_ended_before_their_deadline() -> None:
    trace = Trace()
    for number in range(REQUEST_COUNT):
        trace.came(f"r{number}", prompt=range(50), count=3, strategy="vanilla", deadline=trace.now + 600.0)
        batch_id, session_id = ids(trace)
        trace.judged(batch_id, verdict(session_id, [7], 50))
        round_id, _ = ids(trace)
        trace.drafted(round_id, DraftedTree(session_id, 51, chain([8]), exchange_count=1))
        batch_id, _ = ids(trace)
        trace.judged(batch_id, verdict(session_id, [8, 9], 52, nodes=[0]))
    assert trace.scheduler.live_count == 0
    gc.collect()
    assert sum(type(thing) is Live for thing in gc.get_objects()) == 0
    assert len(trace.scheduler._alarms) <= 2 * SWEEP_COUNT_MIN
