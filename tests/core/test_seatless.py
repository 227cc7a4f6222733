"""Who sits down next where verifiers are full: by priority, then by arrival, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.planner import Planner
from cosine.core.routing import Route, SharedScores
from cosine.core.scheduler import Scheduler
from cosine.core.seats import Seatless, Seats
from cosine.core.strategy import PLAIN

ARRIVALS = st.lists(st.lists(st.integers(-10, 10), max_size=4), max_size=30)


def live(name: str, priority: int = 0, prompt_length: int = 3) -> Live:
    admission = ev.Admission(name, 1, "g", (1,) * prompt_length, prompt_length, 1, priority=priority)
    return Live(admission, name, PLAIN, Route(SharedScores()), [1] * prompt_length, 0.0)


@dataclass
class Watched:
    """One that waits, how many it found waiting, and how many have sat down since."""

    live: Live
    found_count: int
    passed_count: int = 0


@given(ARRIVALS, st.integers(0, 5))
def test_nobody_is_passed_over_more_often_than_the_bound_says(arrivals: list[list[int]], overtaken_max: int) -> None:
    seatless, waiting = Seatless(overtaken_max), list[Watched]()
    while arrivals or waiting:
        for priority in arrivals.pop(0) if arrivals else ():
            waiting.append(Watched(live(f"{len(arrivals)}-{len(waiting)}", priority), len(waiting)))
            seatless.add(waiting[-1].live)
        for first in seatless.in_turn()[:1]:
            seatless.sit(first)
            waiting = [one for one in waiting if one.live is not first]
            for one in waiting:
                one.passed_count += 1
                assert one.passed_count <= overtaken_max + one.found_count
        assert len(seatless) == len(waiting)


@given(st.lists(st.sampled_from([None, 0]), max_size=60), st.integers(0, 5))
def test_equals_sit_down_as_they_came(turns: list[int | None], overtaken_max: int) -> None:
    seatless, came, sat = Seatless(overtaken_max), list[Live](), list[Live]()
    for number, turn in enumerate(turns):
        if turn is None:
            came.append(live(str(number)))
            seatless.add(came[-1])
        for first in seatless.in_turn()[:1] if turn is not None else ():
            seatless.sit(first)
            sat.append(first)
    assert sat + seatless.in_turn() == came


def test_one_that_comes_again_while_it_waits_keeps_its_place() -> None:
    seatless, first, second = Seatless(8), live("first"), live("second")
    for one in (first, second, first):
        seatless.add(one)
    assert seatless.in_turn() == [first, second]
    seatless.discard(first)
    seatless.discard(first)
    assert seatless.in_turn() == [second]


def test_where_nobody_else_fits_a_short_one_sits_down_and_the_long_one_keeps_its_turn() -> None:
    seats = Seats(SchedulerConfig(), pace := Pace(), Planner(SchedulerConfig(), pace))
    for name, tokens_max in (("short", 100), ("long", 200)):
        seats.up(ev.VerifierFacts(name, sessions_max=1, tokens_max=tokens_max))
    seats.by_peer["long"].take_place(live("sits there"))
    seatless = Seatless(8)
    for one in (live("long", 10, 150), live("first"), live("second")):
        seatless.add(one)
    found = []
    for one, fitting in seats.places(seatless):
        fitting[0].take_place(one)
        found.append((one.session_id, fitting[0].peer_id))
    assert found == [("first", "short")]
    assert [one.session_id for one in seatless.in_turn()] == ["long", "second"]


class House:
    """A scheduler whose one verifier has one seat; every request ends with its first token."""

    def __init__(self, overtaken_max: int) -> None:
        self.order: list[str] = []
        self._now = 1.0
        self._batches: list[ev.SendBatch] = []
        self._scheduler = Scheduler(SchedulerConfig(passed_over_max=overtaken_max))
        self._tell(ev.VerifierUp(ev.VerifierFacts("v", sessions_max=1)))

    def ask(self, name: str, priority: int) -> None:
        self._tell(ev.RequestCame(ev.Admission(name, 1, "g", (1, 2), 2, 1, strategy="plain", priority=priority)))

    def judge(self) -> bool:
        """Ends the request that sits there; False where there is none."""
        if not self._batches:
            return False
        batch = self._batches.pop(0)
        self._tell(ev.VerdictCame(batch.batch_id, ev.SessionVerdict(batch.items[0].session_id, (7,), (), 2)))
        self._tell(ev.BatchDone(batch.batch_id))
        return True

    def _tell(self, event: ev.Event) -> None:
        self._now += 0.01
        for command in self._scheduler.handle(event, self._now):
            if isinstance(command, ev.SendBatch):
                self._batches.append(command)
            elif isinstance(command, ev.Progress) and command.finish:
                self.order.append(command.request_id)


def test_the_higher_one_sits_down_before_those_that_came_before_it() -> None:
    house = House(overtaken_max=8)
    for name, priority in (("sits", -10), ("low", -10), ("a", 0), ("b", 0), ("urgent", 10)):
        house.ask(name, priority)
    while house.judge():
        pass
    assert house.order == ["sits", "urgent", "a", "b", "low"]


@pytest.mark.parametrize("overtaken_max", [0, 3])
def test_a_stream_of_higher_ones_holds_one_up_for_exactly_the_bound(overtaken_max: int) -> None:
    house = House(overtaken_max)
    house.ask("sits", 0)
    house.ask("patient", -10)
    for number in range(8):
        house.ask(f"urgent {number}", 10)
        house.judge()
    while house.judge():
        pass
    assert house.order.index("patient") == 1 + overtaken_max
