"""How far to guess: the best nodes of a batch, an early stop that follows the costs, a way back to plain decoding."""

from __future__ import annotations

import itertools

import pytest
from harness import Mesh, paths
from hypothesis import given
from hypothesis import strategies as st
from test_tree import trees

from cosine.core import events as ev
from cosine.core.speculation import (
    VALUE_MIN_CEILING,
    VALUE_MIN_FLOOR,
    HitRate,
    Offer,
    Pace,
    Shape,
    Trials,
    best_offer,
    spend,
)
from cosine.core.timing import LineModel
from cosine.core.tree import ROOT, TokenTree, validate, values

BATCHES = st.lists(trees(nodes_max=4), min_size=1, max_size=3)
COSTS = st.tuples(st.floats(0.5, 50), st.floats(0, 20), st.floats(0, 50))
BINARY = TokenTree((1, 2, 3, 4), (ROOT, ROOT, 0, 1), (0.6, 0.3, 0.9, 0.5), (1, 1, 1, 1))


def pace(base_ms: float = 8.0, slope_ms: float = 0.3) -> Pace:
    return Pace(verify=LineModel(base_ms=base_ms, slope_ms=slope_ms))


def goodput(given_trees: list[TokenTree], its: Pace, spent_ms: float) -> float:
    """Expected tokens per millisecond of the round."""
    nodes = sum(map(len, given_trees))
    tokens = len(given_trees) + sum(sum(values(tree)) for tree in given_trees)
    return tokens / (spent_ms + its.verify.predict(len(given_trees) + nodes))


def best_goodput(given_trees: list[TokenTree], its: Pace, spent_ms: float, rows_max: int) -> float:
    """The highest goodput of any choice of nodes, parents with their children."""
    best = 0.0
    nodes = [(index, node) for index, tree in enumerate(given_trees) for node in range(len(tree))]
    for count in range(min(len(nodes), rows_max - len(given_trees)) + 1):
        for chosen in map(set, itertools.combinations(nodes, count)):
            if all(given_trees[i].parents[n] == ROOT or (i, given_trees[i].parents[n]) in chosen for i, n in chosen):
                value = sum(values(given_trees[index])[node] for index, node in chosen)
                time_ms = spent_ms + its.verify.predict(len(given_trees) + count)
                best = max(best, (len(given_trees) + value) / time_ms)
    return best


@given(BATCHES, COSTS, st.integers(0, 9))
def test_spending_reaches_the_best_goodput_there_is(
    given_trees: list[TokenTree], costs: tuple[float, float, float], spare: int
) -> None:
    base_ms, slope_ms, spent_ms = costs
    its, rows_max = pace(base_ms, slope_ms), len(given_trees) + spare
    kept = spend(given_trees, its, spent_ms, rows_max)
    assert goodput(kept, its, spent_ms) == pytest.approx(best_goodput(given_trees, its, spent_ms, rows_max))


@given(BATCHES, COSTS, st.integers(0, 20))
def test_spending_keeps_whole_paths_within_the_rows_and_never_lowers_goodput(
    given_trees: list[TokenTree], costs: tuple[float, float, float], rows_max: int
) -> None:
    base_ms, slope_ms, spent_ms = costs
    its = pace(base_ms, slope_ms)
    kept = spend(given_trees, its, spent_ms, rows_max)
    assert sum(map(len, kept)) <= max(0, rows_max - len(given_trees))
    for tree, whole in zip(kept, given_trees, strict=True):
        validate(tree, 3)
        assert paths(tree).keys() <= paths(whole).keys()
    none = [TokenTree() for _ in given_trees]
    assert goodput(kept, its, spent_ms) >= goodput(none, its, spent_ms) - 1e-12


def test_rows_that_cost_nothing_are_all_used() -> None:
    assert spend([BINARY], pace(slope_ms=0.0), 5.0, 64) == [BINARY]


def test_rows_that_cost_as_much_as_a_pass_are_not_used() -> None:
    assert spend([BINARY], pace(base_ms=0.1, slope_ms=100.0), 0.0, 64) == [TokenTree()]


def test_a_sure_request_takes_the_rows_of_an_unsure_one() -> None:
    sure = TokenTree((1, 2), (ROOT, 0), (0.9, 0.9), (1, 1))
    unsure = TokenTree((1, 2), (ROOT, 0), (0.2, 0.2), (1, 1))
    assert spend([unsure, sure], pace(), 5.0, 4) == [TokenTree(), sure]


def least(row_ms: float = 0.03, slope_ms: float = 0.3, hit_rates: tuple[float, ...] = (0.8,)) -> float:
    its = Pace(verify=LineModel(base_ms=10.0, slope_ms=slope_ms))
    its.draft.rate_ms = row_ms
    return best_offer(Shape(8), its, hit_rates, drafter_count=4).value_min


def test_drafting_stops_earlier_where_steps_or_rows_are_slow() -> None:
    by_step = [least(row_ms=row_ms) for row_ms in (0.0, 0.02, 0.05, 0.1, 99.0)]
    by_row = [least(slope_ms=slope_ms) for slope_ms in (0.01, 0.1, 0.3, 0.6, 99.0)]
    for found in (by_step, by_row):
        assert found == sorted(found)
        assert VALUE_MIN_FLOOR <= found[0] < found[-1] == VALUE_MIN_CEILING


def offer(hit_rates: list[float], verify_ms: float = 30.0, row_ms: float = 0.04, full: Shape | None = None) -> Offer:
    its = Pace(verify=LineModel(base_ms=verify_ms, slope_ms=0.3))
    its.draft.rate_ms = row_ms
    return best_offer(full or Shape(8, 2, 2), its, hit_rates, 4)


@given(st.floats(0.5, 50), st.floats(0.001, 0.5), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_an_offer_stays_within_the_strategy(verify_ms: float, row_ms: float, hit_rates: list[float]) -> None:
    found = offer(hit_rates, verify_ms, row_ms)
    assert len(found.depths) == len(found.promised) == len(hit_rates)
    assert all(0 <= depth <= 8 for depth in found.depths)
    assert found.drafter_count in (1, 2)
    assert found.beam in (1, 2)
    assert found.gain >= 0.0


def test_sure_drafts_are_deep_and_unsure_ones_are_not_worth_it() -> None:
    sure, unsure = offer([0.95]), offer([0.02])
    assert sure.depths > unsure.depths
    assert sure.gain > 1.5
    assert unsure.gain <= 1.0


def test_of_the_sessions_of_a_plan_the_surer_ones_are_drafted_deeper_for() -> None:
    depths = offer([0.2, 0.6, 0.9], verify_ms=10.0, row_ms=0.2).depths
    assert depths == tuple(sorted(depths))
    assert depths[0] < depths[2]


def test_the_slower_drafting_is_the_less_is_drafted() -> None:
    depths = [sum(offer([0.6, 0.8], row_ms=row_ms).depths) for row_ms in (0.001, 0.1, 0.3, 1.0, 10.0)]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[-1]


def test_promises_that_are_not_kept_lower_what_is_believed_of_the_next() -> None:
    its = Pace()
    before = best_offer(Shape(8), its, [0.9], 1)
    for _ in range(300):
        its.note_promise(2.0, 1)
    after = best_offer(Shape(8), its, [0.9], 1)
    assert after.promised == before.promised
    assert after.gain == pytest.approx(before.gain / 2, rel=0.01)


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
    for _ in range(50):
        rate.note(0, 0)
    assert rate.value == pytest.approx(0.75, abs=0.02)


def test_an_offer_that_gains_is_always_taken() -> None:
    trials = Trials()
    assert all(trials.allow(1.5) for _ in range(100))


def test_an_offer_that_loses_is_taken_for_a_few_rounds_now_and_then() -> None:
    trials = Trials()
    taken = [trials.allow(0.5) for _ in range(500)]
    assert 0 < sum(taken[-250:]) < 0.4 * 250
    trials.allow(1.5)
    assert not trials.allow(0.5), "what has just been tried is not tried again at once"


def test_a_request_whose_drafts_never_hit_goes_plain_and_now_and_then_tries_again() -> None:
    mesh = Mesh(drafters={"bad": "toy:seed=1,own=9,skill=0"})
    text = mesh.ask("r", count=300)
    mesh.run()
    assert text.tokens == text.plain
    drafts = [
        isinstance(command, ev.SendPlan) for command in mesh.sent if isinstance(command, ev.SendPlan | ev.SendBatch)
    ]
    assert 0 < sum(drafts[-150:]) < 50
