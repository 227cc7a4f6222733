"""What is learned around a verifier: it follows what is seen, and fades towards what is usual where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.goodput import Shape, best_offer
from cosine.core.pace import HIT_PRIOR, MISSES_MAX, ROWS_MAX, TRUTH_MAX, HitRate, Pace, draft_load
from cosine.core.planner import Drafting
from cosine.core.speculation import learn
from cosine.core.timing import DraftLoad


def test_a_hit_rate_follows_what_is_right_and_without_drafts_goes_back_to_what_is_usual() -> None:
    rate, seen = HitRate(0.75), {}
    assert rate.value == 0.75
    for accepted in (8, 3, 0):
        for _ in range(50):
            rate.note(accepted, 8)
        seen[accepted] = rate.value
    assert seen[8] > 0.95
    assert seen[3] == pytest.approx(0.75, abs=0.02)
    assert seen[0] < 0.2
    for _ in range(30):
        rate.note(0, 0)
    assert rate.value < 0.6, "not at once"
    for _ in range(200):
        rate.note(0, 0)
    assert rate.value == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("true_rate", [0.5, 0.8, 0.95])
def test_drafts_that_miss_more_often_say_as_much_less_about_the_fullest_ones(true_rate: float) -> None:
    dice, misses, thin = np.random.default_rng(5), 1.5, []
    rate = HitRate(true_rate)
    seen_rate = 1.0 - misses * (1.0 - true_rate)
    for turn in range(4000):
        accepted = 0
        while accepted < 6 and dice.random() < seen_rate:
            accepted += 1
        rate.note(accepted, 6, misses)
        if turn > 100:
            thin.append(rate.value)
    assert np.mean(thin) == pytest.approx(true_rate, abs=0.04)


@given(st.lists(st.tuples(st.floats(1, 9), st.integers(1, 9)), max_size=60))
def test_truth_stays_a_share(promises: list[tuple[float, int]]) -> None:
    pace = Pace()
    for promised, committed in promises:
        pace.note_promise(promised, committed)
    assert 0.0 <= pace.truth <= TRUTH_MAX


@pytest.mark.parametrize("kept_share", [0.25, 1.0, 1.5])
def test_truth_is_the_share_of_the_further_tokens_that_come(kept_share: float) -> None:
    pace, dice = Pace(), np.random.default_rng(2)
    for _ in range(600):
        extra = float(dice.uniform(0.5, 4.0))
        pace.note_promise(1.0 + extra, 1 + int(dice.binomial(8, kept_share * extra / 8)))
    assert pace.truth == pytest.approx(kept_share, abs=0.15)


def test_a_promise_of_plain_decodings_one_token_teaches_nothing() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note_promise(1.0, 1)
    assert pace.truth == 1.0


def test_rows_per_step_are_what_was_verified_for_what_was_planned() -> None:
    pace = Pace()
    for _ in range(300):
        pace.note_rows(90, 30)
    assert pace.rows_per_step == pytest.approx(3.0, abs=0.01)
    pace.note_rows(5, 0)
    for _ in range(300):
        pace.note_rows(1000, 1)
    assert pace.rows_per_step <= ROWS_MAX


def test_batches_that_came_without_trees_say_nothing_of_rows() -> None:
    pace = Pace()
    for _ in range(30_000):
        pace.note_rows(0, 8)
    assert pace.rows_per_step == Pace().rows_per_step


def test_head_starts_are_known_by_their_share_and_depth() -> None:
    pace = Pace()
    for turn in range(400):
        pace.note_head_start(6 if turn % 4 == 0 else 0)
    assert pace.head_share == pytest.approx(0.25, abs=0.05)
    assert pace.head_depth == pytest.approx(6.0)
    for _ in range(200):
        pace.note_head_start(0)
    assert pace.head_share < 0.01


def test_head_starts_after_verdicts_on_nothing_and_on_trees_are_told_apart() -> None:
    pace = Pace()
    for turn in range(400):
        pace.note_head_start(4 if turn % 5 else 0, bare=True)
        pace.note_head_start(4 if turn % 2 else 0, bare=False)
    assert pace.bare_share == pytest.approx(0.8, abs=0.05)
    assert pace.tree_share == pytest.approx(0.5, abs=0.05)
    assert pace.bare_gain == pytest.approx(0.3 / 1.3, abs=0.05)
    before = pace.bare_share, pace.tree_share
    pace.note_head_start(0)
    assert (pace.bare_share, pace.tree_share) == before, "neither tells"
    pace.bare_share = 0.1
    assert pace.bare_gain == 0.0


def test_what_late_drafts_bring_is_a_share_of_what_was_promised_on_average() -> None:
    pace = Pace()
    for turn in range(600):
        pace.note_late(5.0, 1 + 4 * (turn % 2))
    assert pace.late_truth == pytest.approx(0.5, abs=0.05)
    pace.note_late(1.0, 9)
    assert pace.late_truth == pytest.approx(0.5, abs=0.05), "nothing was promised"
    for _ in range(600):
        pace.note_rest()
    assert pace.late_truth == pytest.approx(1.0, abs=0.01)


def test_drafting_is_hidden_as_far_as_the_verifier_works_for_others_meanwhile() -> None:
    alone, crowded = Pace(), Pace()
    for _ in range(100):
        alone.note_batch(draft_ms=20.0, idle_ms=20.0, waiting_ms=0.0)
        crowded.note_batch(draft_ms=20.0, idle_ms=0.0, waiting_ms=10.0)
    assert alone.exposed_ms(20.0) == 20.0
    assert crowded.exposed_ms(20.0) == 0.0
    assert crowded.exposed_ms(40.0) == pytest.approx(10.0, abs=0.1)


def play(pace: Pace, true_misses: dict[tuple[int, int], float], rounds: int, hit_rate: float = 0.8) -> None:
    """Rounds of all shapes in turn, whose drafts miss as often as they truly do."""
    dice, rate = np.random.default_rng(7), HitRate()
    shapes = list(true_misses)
    for turn in range(rounds):
        count, beam = shapes[turn % len(shapes)]
        full = Shape(6, count, beam, crew_full=2, beam_full=2)
        offer = best_offer(full, pace, [rate.value], 4, among=lambda ways, depth: [(ways[-1], range(1, depth + 1))])
        assert (offer.drafter_count, offer.beam) == (count, beam)
        accepted = 0
        while accepted < 6 and dice.random() < 1.0 - true_misses[count, beam] * (1.0 - hit_rate):
            accepted += 1
        learn(pace, rate, offer, 0.0, accepted, 6)


def test_how_much_worse_thin_crews_and_beams_are_is_learned_from_their_misses() -> None:
    pace = Pace()
    play(pace, {(2, 2): 1.0, (1, 2): 1.6, (2, 1): 1.3, (1, 1): 1.6 * 1.3}, 8000)
    assert pace.single_misses == pytest.approx(1.6, abs=0.2)
    assert pace.chain_misses == pytest.approx(1.3, abs=0.2)


def test_a_crew_that_is_never_changed_says_nothing_about_others() -> None:
    pace = Pace()
    play(pace, {(2, 2): 1.0}, 1000)
    assert (pace.single_misses, pace.chain_misses) == (Pace().single_misses, Pace().chain_misses)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 8), st.floats(0, 8)), max_size=50))
def test_misses_stay_within_reason(seen: list[tuple[float, float, float, float]]) -> None:
    pace = Pace()
    for crew, chain, missed, expected in seen:
        pace.note_misses(crew, chain, 100 * missed, expected)
    assert 1.0 <= pace.misses(1.0, 1.0) <= MISSES_MAX**2
    assert pace.misses(0.0, 0.0) == 1.0


def test_requests_that_come_later_expect_what_requests_achieve() -> None:
    pace = Pace()
    for _ in range(400):
        learn(pace, HitRate(pace.hit_rate), None, 0.0, 0, 4)
    assert pace.hit_rate < HIT_PRIOR / 2


def test_a_round_without_a_tree_teaches_only_that_time_passes() -> None:
    pace, rate = Pace(), HitRate(hits=9.0, tries=9.0)
    learn(pace, rate, None, 3.0, 0, 0)
    assert (pace.truth, pace.hit_rate) == (1.0, HIT_PRIOR)
    assert 8.0 < rate.hits == rate.tries < 9.0


def test_the_load_of_a_plan_is_that_of_its_busiest_drafter_and_that_of_the_others() -> None:
    sessions = [(("a", "b"), 4, 9), (("a",), 6, 7), (("c",), 0, 50)]
    assert draft_load(sessions) == DraftLoad(1, 6, 16, 4, 9)
    assert draft_load(sessions, fusion_interval=4).exchange_count == 2
    assert draft_load([]) == DraftLoad()
    assert Pace().drafting_ms(DraftLoad()) == 0.0


def test_a_plan_counts_the_steps_that_were_taken_not_those_that_were_asked_for() -> None:
    asked = {"a": (("x", "y"), 8, 2), "b": (("x",), 8, 3), "c": (("y",), 6, 9)}
    drafting = Drafting([], 0.0, asked, 8, 1, 0.0, False)
    assert drafting.load() == DraftLoad(1, 8, 25, 8, 21), "nothing is known yet"
    drafting.run = {"a": 3, "b": 0, "c": 5}
    assert drafting.load() == DraftLoad(1, 5, 19, 3, 5), "b had all that it needed"
    drafting.run = {"a": 0, "b": 0, "c": 0}
    assert drafting.load() == DraftLoad()
