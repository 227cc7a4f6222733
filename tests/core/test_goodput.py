"""What to draft: as deep, wide and by as many as predicted goodput says, against honest and exhaustive counts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.feedback import Feedback
from cosine.core.goodput import VALUE_MIN_CEILING, VALUE_MIN_FLOOR, Offer, Shape, best_offer
from cosine.core.pace import Pace
from cosine.core.timing import DraftModel, LineModel

DRAFTERS = 4
FULL = Shape(8, 2, 2, width=3, node_budget=24, fusion_interval=8)
PARALLEL, SHARED = 0.0, 1.0


def pace(
    verify_ms: float = 30.0,
    slope_ms: float = 0.3,
    exchange_ms: float = 2.0,
    row_ms: float = 0.04,
    sharing: float = SHARED,
    pass_rows: float = 5.0,
) -> Pace:
    """A pace that is known; a pass costs `pass_rows` rows, other drafters' work `sharing` times one's own."""
    pass_ms = pass_rows * row_ms
    drafting = DraftModel(exchange_ms, pass_ms, row_ms, sharing * pass_ms, sharing * row_ms)
    return Pace(verify=LineModel(base_ms=verify_ms, slope_ms=slope_ms), drafting=drafting)


def offer(hit_rates: list[float], its: Pace, full: Shape = FULL) -> Offer:
    return best_offer(full, its, hit_rates, DRAFTERS)


def chance_of_each_count(rate: float, depth: int) -> list[float]:
    """Probability that 0, 1, ... `depth` tokens of a path are accepted."""
    return [rate**count * (1 - rate) for count in range(depth)] + [rate**depth]


def honest_time_per_token(found: Offer, its: Pace, hit_rates: list[float], full: Shape) -> float:
    """Milliseconds per token of a round as offered, counted drafter by drafter and outcome by outcome."""
    factor = (its.single_misses if found.drafter_count < full.drafter_count else 1.0) * (
        its.chain_misses if found.beam < full.beam else 1.0
    )
    tokens = []
    for rate, depth in zip(hit_rates, found.depths, strict=True):
        chances = chance_of_each_count(max(0.0, 1.0 - factor * (1.0 - rate)), depth)
        tokens.append(sum((1 + count) * chance for count, chance in enumerate(chances)))
    passes, rows = [0] * DRAFTERS, [0.0] * DRAFTERS
    drafted = sorted(pair for pair in zip(found.depths, tokens, strict=True) if pair[0])
    for session, (depth, read) in enumerate(drafted):
        for turn in range(found.drafter_count):
            drafter = (session * found.drafter_count + turn) % DRAFTERS
            passes[drafter] = max(passes[drafter], depth)
            rows[drafter] += found.beam * depth + read
    model = its.drafting
    own = max(model.pass_ms * count + model.row_ms * row for count, row in zip(passes, rows, strict=True))
    others = model.pass_extra_ms * (sum(passes) - max(passes)) + model.row_extra_ms * (sum(rows) - max(rows))
    drafting_ms = model.exchange_ms * -(-max(passes) // full.fusion_interval) + own + others
    verify_ms = its.verify.predict(len(hit_rates) + its.rows_per_step * sum(found.depths))
    return (drafting_ms + verify_ms) / sum(tokens)


PACES = st.builds(
    pace,
    verify_ms=st.floats(1, 60),
    slope_ms=st.floats(0.01, 2),
    exchange_ms=st.floats(0, 20),
    row_ms=st.floats(0.001, 1),
    sharing=st.sampled_from([PARALLEL, 0.5, SHARED]),
)
HIT_RATES = st.lists(st.floats(0, 0.98), min_size=1, max_size=16)


@settings(deadline=None, max_examples=300)
@given(PACES, HIT_RATES, st.sampled_from([1, 3, 8]))
def test_what_is_chosen_is_never_predicted_to_be_slower_than_plain_decoding(
    its: Pace, hit_rates: list[float], fusion_interval: int
) -> None:
    full = replace(FULL, fusion_interval=fusion_interval)
    found = offer(hit_rates, its, full)
    chosen = found if found.gain >= 1.0 else found.plain()
    plain = its.verify.predict(len(hit_rates)) / len(hit_rates)
    assert honest_time_per_token(chosen, its, hit_rates, full) <= 1.02 * plain


@settings(deadline=None, max_examples=60)
@given(PACES, st.lists(st.floats(0, 0.98), min_size=1, max_size=2))
def test_what_is_chosen_is_close_to_the_best_there_is(its: Pace, hit_rates: list[float]) -> None:
    full = Shape(5, 2, 2, fusion_interval=2)
    found = offer(hit_rates, its, full)
    best_ms = min(
        honest_time_per_token(replace(found, depths=depths, drafter_count=count, beam=beam), its, hit_rates, full)
        for count, beam in itertools.product((1, 2), (1, 2))
        for depths in itertools.product(range(6), repeat=len(hit_rates))
        if any(depths)
    )
    plain_ms = its.verify.predict(len(hit_rates)) / len(hit_rates)
    chosen_ms = honest_time_per_token(found, its, hit_rates, full) if found.gain >= 1.0 else plain_ms
    assert chosen_ms <= 1.05 * min(best_ms, plain_ms)


def test_what_is_tried_against_the_odds_is_tried_for_every_session() -> None:
    found = offer([0.5, 0.0, 0.1], pace(verify_ms=1.0, slope_ms=1.0, row_ms=1.0))
    assert found.gain < 1.0
    assert all(found.depths)


@settings(deadline=None)
@given(PACES, HIT_RATES)
def test_an_offer_stays_within_the_strategy(its: Pace, hit_rates: list[float]) -> None:
    found = offer(hit_rates, its)
    assert len(found.depths) == len(found.promised) == len(found.node_budgets) == len(hit_rates)
    assert all(0 <= depth <= FULL.depth for depth in found.depths)
    assert all(budget <= FULL.node_budget for budget in found.node_budgets)
    assert all((depth == 0) == (budget == 0) for depth, budget in zip(found.depths, found.node_budgets, strict=True))
    assert found.drafter_count in (1, 2)
    assert found.beam in (1, 2)
    assert found.width in (1, 3)
    assert found.gain >= 0.0


@settings(deadline=None)
@given(HIT_RATES, st.integers(1, 60))
def test_an_offer_stays_within_the_rows_of_the_verifier(hit_rates: list[float], rows_max: int) -> None:
    its = pace(slope_ms=0.01, row_ms=0.001)
    found = best_offer(FULL, its, hit_rates, DRAFTERS, rows_max)
    assert its.rows_per_step * sum(found.depths) <= max(0, rows_max - len(hit_rates))
    free = best_offer(FULL, its, hit_rates, DRAFTERS)
    if its.rows_per_step * sum(free.depths) > rows_max - len(hit_rates) and any(found.depths):
        assert max(found.depths) <= max(free.depths), "the deepest are cut first"


def test_without_drafters_or_depth_nothing_is_offered() -> None:
    for found in (best_offer(FULL, pace(), [0.9], 0), best_offer(replace(FULL, depth=0), pace(), [0.9], 4)):
        assert found.depths == (0,)
        assert found.gain == 1.0
        assert found.time_ms == found.plain_ms == pace().verify.predict(1)


def test_sure_drafts_are_deep_and_unsure_ones_are_not_worth_it() -> None:
    sure, unsure = offer([0.95], pace()), offer([0.02], pace())
    assert sure.depths > unsure.depths
    assert sure.gain > 1.5
    assert unsure.gain <= 1.0


def test_of_the_sessions_of_a_plan_the_surer_ones_are_drafted_deeper_for() -> None:
    depths = offer([0.2, 0.6, 0.9], pace(verify_ms=10.0, row_ms=0.2)).depths
    assert depths == tuple(sorted(depths))
    assert depths[0] < depths[2]


def test_the_slower_drafting_is_the_less_is_drafted() -> None:
    depths = [sum(offer([0.6, 0.8], pace(row_ms=row_ms)).depths) for row_ms in (0.001, 0.1, 0.3, 1.0, 10.0)]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[-1]


def test_drafting_stops_earlier_where_steps_or_rows_are_slow() -> None:
    full = Shape(8)
    by_step = [offer([0.8], pace(10.0, row_ms=row_ms), full).value_min for row_ms in (0.0, 0.02, 0.05, 0.1, 99.0)]
    by_row = [offer([0.8], pace(10.0, slope_ms), full).value_min for slope_ms in (0.01, 0.1, 0.3, 0.6, 99.0)]
    for found in (by_step, by_row):
        assert found == sorted(found)
        assert VALUE_MIN_FLOOR <= found[0] < 0.5 < found[-1] <= VALUE_MIN_CEILING


def test_more_drafters_are_asked_where_they_work_at_the_same_time() -> None:
    full = Shape(8, 4, 1)
    times = {"verify_ms": 25.0, "slope_ms": 0.1, "exchange_ms": 0.4, "row_ms": 0.5}
    alone = offer([0.8], pace(**times, sharing=PARALLEL), full)
    crowded = offer([0.8], pace(**times, sharing=SHARED), full)
    assert alone.drafter_count == 4
    assert crowded.drafter_count < 4
    assert alone.gain > crowded.gain


def test_siblings_are_wanted_only_where_rows_are_cheap() -> None:
    assert offer([0.9], pace(slope_ms=0.05)).width == 3
    assert offer([0.99], pace(verify_ms=1.0, slope_ms=2.0)).width == 1


def test_nodes_are_bounded_where_no_drafter_could_bring_that_many_of_worth() -> None:
    cheap, dear = offer([0.7], pace(slope_ms=0.01)), offer([0.7], pace(verify_ms=1.0, slope_ms=2.0))
    assert cheap.node_budgets == (24,)
    assert 0 < dear.node_budgets[0] < 24


def test_promises_that_are_not_kept_lower_what_is_believed_beyond_the_one_token_of_plain_decoding() -> None:
    its = pace()
    before = offer([0.9], its, Shape(8))
    for _ in range(300):
        its.note_promise(3.0, 1)
    assert its.truth < 0.01
    after = offer([0.9], its, Shape(8))
    assert before.gain > 1.5
    assert after.gain < 1.0


def test_half_kept_promises_are_believed_by_half() -> None:
    its = pace()
    before = offer([0.9], its, Shape(8))
    its.truth = 0.5
    time_ms = before.time_ms / its.verify.predict(1)
    assert offer([0.9], its, Shape(8)).gain >= (1.0 + 0.5 * (before.promised[0] - 1.0)) / time_ms - 1e-9
    assert offer([0.9], its, Shape(8)).gain < before.gain


def test_a_head_start_makes_drafting_cheaper_and_the_offer_better() -> None:
    gains = []
    for share in (0.0, 0.5, 1.0):
        its = pace(row_ms=0.2)
        its.head_share, its.head_depth = share, 3.0
        gains.append(offer([0.8], its).gain)
    assert gains == sorted(gains)
    assert gains[2] > 1.1 * gains[0]


def test_a_head_start_helps_a_round_only_where_all_its_sessions_have_it() -> None:
    its = pace(row_ms=0.0, exchange_ms=5.0)
    its.head_share, its.head_depth = 0.5, 8.0
    full = Shape(8, 1, 1, fusion_interval=8)
    times = []
    for count in (1, 2, 4):
        found = offer([0.9] * count, its, full)
        waited_ms = found.time_ms - its.verify.predict(count + its.rows_per_step * sum(found.depths))
        times.append(waited_ms)
    assert times == pytest.approx([5.0 * (1 - 0.5**count) for count in (1, 2, 4)])


def test_drafting_that_the_verifier_does_not_wait_for_costs_no_time() -> None:
    its = pace(row_ms=1.0)
    waited = offer([0.8], its)
    its.hidden_ms = 1000.0
    hidden = offer([0.8], its)
    assert sum(hidden.depths) > sum(waited.depths)
    assert hidden.time_ms == pytest.approx(its.verify.predict(1 + its.rows_per_step * sum(hidden.depths)))


def test_bounds_from_outside_do_not_make_a_thin_crew_look_like_the_full_one() -> None:
    its = pace(sharing=SHARED, row_ms=0.2)
    limited = Feedback(level=-4).limit(FULL)
    found = offer([0.8], its, limited)
    assert (found.drafter_count, found.beam) == (1, 1)
    assert (found.crew, found.chain) == (1.0, 1.0)
    free = offer([0.8], its, Shape(8, 1, 1, width=3, fusion_interval=8))
    assert found.gain < free.gain, "hit rates are those of the full crew and beam"


def test_passes_that_usually_end_early_make_drafting_as_much_shorter() -> None:
    whole, half = pace(exchange_ms=0.0), pace(exchange_ms=0.0)
    for _ in range(300):
        half.note_passes(8.0, 4.0)
    assert half.run_share == pytest.approx(0.5, abs=0.01)
    found, early = offer([0.9], whole, Shape(1)), offer([0.9], half, Shape(1))
    read_ms = whole.drafting.row_ms * 1.9  # what the last round committed is read all the same
    drafting_ms = [it.time_ms - it.plain_ms - whole.verify.slope_ms * whole.rows_per_step for it in (found, early)]
    assert drafting_ms[1] - read_ms == pytest.approx(half.run_share * (drafting_ms[0] - read_ms))
    assert found.pass_count == early.pass_count == 1, "what is learned is a share of what is asked"


def test_where_most_sessions_start_ahead_a_pass_must_pay_for_the_few_that_do_not() -> None:
    its = pace(sharing=PARALLEL)
    usual = offer([0.8] * 8, its)
    its.head_share = 0.75
    few = offer([0.8] * 8, its)
    assert (usual.depths, usual.time_ms) == (few.depths, few.time_ms), "nothing is kept of any depth"
    assert few.value_min > usual.value_min
    its.head_share = 1.0
    assert offer([0.8], its).value_min == offer([0.8], pace(sharing=PARALLEL)).value_min, "one lacks it, or none"


def test_a_pass_that_costs_more_than_the_few_who_lack_it_can_bring_is_not_waited_for() -> None:
    its = pace(sharing=PARALLEL, row_ms=0.5)
    assert offer([0.8] * 16, its).value_min <= VALUE_MIN_CEILING, "all lack it"
    its.head_share = 0.9
    assert offer([0.8] * 16, its).value_min > 1.0
    trial = offer([0.05] * 16, its)
    assert trial.gain < 1.0
    assert trial.value_min <= VALUE_MIN_CEILING, "what is tried must be drafted"


def test_drafters_are_waited_for_only_where_that_brings_more_than_its_time_would_elsewhere() -> None:
    ahead = replace(FULL, ahead=True)
    its = pace(sharing=PARALLEL, row_ms=0.1)
    its.head_share, its.head_depth = 0.5, 8.0
    assert not offer([0.8], its, ahead).rests, "it is the only one that would have the time"
    assert offer([0.8] * 16, its, ahead).rests
    assert not offer([0.8] * 16, its).rests, "who does not look ahead would never draft again"
    dear = offer([0.8] * 16, pace(sharing=PARALLEL, row_ms=0.1), ahead)
    assert not dear.rests, "where nobody has a head start nothing else brings more than one token"


def test_what_waiting_brings_is_learned_of_those_who_were_waited_for() -> None:
    ahead = replace(FULL, ahead=True)
    its = pace(sharing=PARALLEL, row_ms=0.04)
    its.head_share, its.head_depth = 0.5, 8.0
    its.tree_share = its.bare_share
    assert not offer([0.8] * 4, its, ahead).rests
    for _ in range(200):
        its.note_late(4.0, 1)
    assert offer([0.8] * 4, its, ahead).rests
    for _ in range(400):
        its.note_rest()
    assert not offer([0.8] * 4, its, ahead).rests, "it is tried again some day"


def test_a_better_chance_of_a_head_start_next_time_speaks_against_waiting() -> None:
    ahead = replace(FULL, ahead=True)
    its = pace(sharing=PARALLEL, row_ms=0.15)
    its.head_share, its.head_depth = 0.5, 8.0
    its.tree_share = its.bare_share = 0.5
    assert not offer([0.8] * 4, its, ahead).rests
    its.bare_share = 0.9
    assert offer([0.8] * 4, its, ahead).rests
