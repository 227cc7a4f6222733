"""Where very many wait, a batch is chosen among the first of them: a choice costs no more, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cosine.core import events as ev
from cosine.core import seat as seats
from cosine.core.batching import choose
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.passes import Candidate, Caps, VerifyTimes
from cosine.core.routing import Route, SharedScores
from cosine.core.seat import LOOKED_AT_MIN, PASSES_LOOKED_AT, Seat
from cosine.core.strategy import COSINE
from cosine.core.timing import LineModel
from cosine.core.tree import chain

COUNT = 4 * LOOKED_AT_MIN
NODES = 3
VERIFY = LineModel(8.0, 0.5)


def live(number: int, priority: int = 0) -> Live:
    """A request that has begun and has its tree."""
    admission = ev.Admission(f"{number}", 1, "g", (1, 2), 2, 64, priority=priority)
    found = Live(admission, f"{number}", COSINE, Route(SharedScores()), [1, 2], 0.0)
    found.round_start, found.cached, found.depth, found.promised = 1.0, 1, NODES, 2.0
    found.tree = chain([9] * NODES, [0.9] * NODES)
    return found


def crowd(lives: Sequence[Live]) -> Seat:
    seat = Seat(ev.VerifierFacts("v", sessions_max=COUNT), VERIFY)
    for one in lives:
        seat.take_place(one)
        seat.wait(one, 1.0, 512)
    return seat


def next_batch(seat: Seat, bounds: SchedulerConfig, batch_id: int) -> list[str]:
    """Who goes next; the pass is over at once."""
    batch = seat.compose(batch_id, seat.queue, bounds, Pace(verify=VERIFY), float(batch_id))
    assert batch is not None
    seat.batches.clear()
    return list(batch.members)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many each batch was chosen."""
    counts: list[int] = []

    def counted(waiting: Sequence[Candidate], times: VerifyTimes, caps: Caps) -> list[int]:
        counts.append(len(waiting))
        return choose(waiting, times, caps)

    monkeypatch.setattr(seats, "choose", counted)
    return counts


@pytest.mark.parametrize("rows_max", [64, 1024])
def test_a_batch_is_chosen_among_those_who_would_fill_a_few(rows_max: int, looked_at: list[int]) -> None:
    seat, bounds = crowd([live(number) for number in range(COUNT)]), SchedulerConfig(batch_rows_max=rows_max)
    next_batch(seat, bounds, 1)
    assert looked_at == [max(LOOKED_AT_MIN, PASSES_LOOKED_AT * rows_max // (NODES + 1))]


def test_all_of_very_many_have_their_turn_and_the_first_to_come_are_not_overtaken_for_long(
    looked_at: list[int],
) -> None:
    seat, bounds = crowd([live(number) for number in range(COUNT)]), SchedulerConfig(batch_rows_max=64)
    went: list[int] = []
    while seat.ready:
        went += map(int, next_batch(seat, bounds, len(went) + 1))
    assert sorted(went) == list(range(COUNT))
    assert max(looked_at) == LOOKED_AT_MIN
    assert all(place < number + LOOKED_AT_MIN for place, number in enumerate(went)), (
        "overtaken by those behind the first"
    )


def test_the_highest_priority_is_looked_at_wherever_it_stands(looked_at: list[int]) -> None:
    lives = [live(number, priority=5 if number == COUNT - 1 else 0) for number in range(COUNT)]
    assert next_batch(crowd(lives), SchedulerConfig(batch_rows_max=64), 1)[0] == f"{COUNT - 1}"
