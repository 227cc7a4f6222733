"""What a deadline of a whole text asks of one pass: to be cut where it is the text's last, to go first on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.routing import Route, SharedScores
from cosine.core.seat import Batch, Seat
from cosine.core.strategy import COSINE
from cosine.core.timing import LineModel
from cosine.core.tree import EMPTY, chain

NOW = 10.0
BASE_MS, ROW_MS = 8.0, 0.5
NODES = 11  # with a token before them 12 rows: 14 ms alone
OTHERS = 19
WHOLE_MS = BASE_MS + ROW_MS * (OTHERS + 1) * (NODES + 1)


def live(name: str, left: int = 64, left_ms: float = 0.0) -> Live:
    """A request that has begun and has its tree; it was promised three tokens of a pass."""
    deadline = NOW + left_ms / 1000 if left_ms else 0.0
    found = Live(
        ev.Admission(name, 1, "g", (1, 2), 2, left, deadline=deadline), name, COSINE, Route(SharedScores()), [1, 2], 0.0
    )
    found.round_start, found.cached, found.depth, found.promised = NOW, 1, NODES, 3.0
    found.tree = chain([9] * NODES, [0.9] * NODES)
    return found


def composed(dated: Live, rows_max: int = 256) -> list[str]:
    """Who goes where one with a deadline, that came last, and others without wait; by name, in order of service."""
    verify = LineModel(BASE_MS, ROW_MS)
    seat, bounds = Seat(ev.VerifierFacts("v"), verify), SchedulerConfig(batch_rows_max=rows_max)
    for one in [*(live(f"other {number}") for number in range(OTHERS)), dated]:
        seat.take_place(one)
        seat.wait(one, NOW, bounds.prefill_chunk)
    batch = seat.compose(1, seat.queue, bounds, Pace(verify=verify), NOW)
    assert isinstance(batch, Batch)
    return list(batch.members)


@pytest.mark.parametrize("left_ms", [5.0, 30.0, 60.0, 130.0, 300.0])
def test_a_text_that_cannot_be_completed_in_time_slows_nobody_down(left_ms: float) -> None:
    assert len(composed(live("dated", 64, left_ms))) == OTHERS + 1
    assert composed(live("dated", 64, left_ms), rows_max=24) == composed(live("dated", 64), rows_max=24)


def test_a_pass_that_completes_a_text_is_cut_to_what_is_left() -> None:
    assert composed(live("dated", 3, 30.0))[0] == "dated"
    assert len(composed(live("dated", 3, 30.0))) == 3
    assert len(composed(live("dated", 3, 10.0))) == OTHERS + 1, "it would be late even alone"
    assert len(composed(live("dated", 3, 2 * WHOLE_MS))) == OTHERS + 1, "it can wait for the next"


def test_a_text_that_needs_further_passes_goes_first_while_its_time_is_short_and_leaves_nobody_out() -> None:
    dated = live("dated", 64, 22 * 30.0)
    assert composed(dated, rows_max=24)[0] == "dated"
    assert len(composed(dated)) == OTHERS + 1
    assert "dated" not in composed(live("dated", 64, 22 * 2 * WHOLE_MS), rows_max=24), "it has time"


def test_tokens_that_passes_have_brought_so_far_count_where_less_was_promised() -> None:
    dated = live("dated", 64, 10 * 25.0)
    assert "dated" not in composed(dated, rows_max=24), "22 passes do not fit into the time of 10"
    dated.figures = ev.Figures(round_count=4, accepted_token_count=24)
    assert composed(dated, rows_max=24)[0] == "dated"


def test_drafting_between_passes_takes_of_the_time() -> None:
    dated = live("dated", 64, 22 * 16.0)
    assert composed(dated, rows_max=24)[0] == "dated"
    dated.draft_ms = 3.0
    assert "dated" not in composed(dated, rows_max=24)


def test_parts_of_a_context_need_passes_of_their_own() -> None:
    assert len(composed(reading(160.0), rows_max=1000)) == len(composed(reading(0.0), rows_max=1000)) == OTHERS + 1
    assert len(composed(reading(160.0, 256), rows_max=1000)) < OTHERS, "this part is the last"


def reading(left_ms: float, count: int = 600) -> Live:
    """A request for a single token behind so many that its verifier has not read."""
    found = live("dated", 1, left_ms)
    found.admission = replace(found.admission, token_ids=(1,) * count, prompt_length=count)
    found.tokens, found.cached, found.tree = [1] * count, 0, EMPTY
    return found
