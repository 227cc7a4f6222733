"""Which nodes of a batch are verified, by value or from the largest down, and whether to draft at all."""

from __future__ import annotations

import itertools

import pytest
from harness import Mesh, paths
from hypothesis import given
from hypothesis import strategies as st
from test_tree import trees

from cosine.core import events as ev
from cosine.core.goodput import Offer
from cosine.core.pace import Pace
from cosine.core.plan import DraftedTree
from cosine.core.speculation import GAIN_LEAST, TRIAL_ROUNDS, TRIAL_SHARE, Cut, Trials, cut, spend, step_down
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


@given(BATCHES, st.integers(0, 16))
def test_steps_down_end_at_the_cap_and_keep_whole_paths(given_trees: list[TokenTree], rows_max: int) -> None:
    kept = step_down(given_trees, rows_max)
    whole = sum(map(len, given_trees))
    assert sum(map(len, kept)) == min(whole, max(0, rows_max - len(given_trees)))
    for tree, before in zip(kept, given_trees, strict=True):
        validate(tree, 3)
        assert paths(tree).keys() <= paths(before).keys()


@given(BATCHES, st.integers(0, 16))
def test_the_largest_request_is_cut_first_and_never_below_the_others(
    given_trees: list[TokenTree], rows_max: int
) -> None:
    kept = step_down(given_trees, rows_max)
    cut_sizes = [len(tree) for tree, before in zip(kept, given_trees, strict=True) if len(tree) < len(before)]
    untouched = [len(tree) for tree, before in zip(kept, given_trees, strict=True) if len(tree) == len(before)]
    if cut_sizes:
        assert max(cut_sizes) - min(cut_sizes) <= 1, "step by step"
        assert max(untouched, default=0) <= min(cut_sizes) + 1, "a larger one would have been cut instead"


@given(BATCHES, st.integers(0, 16))
def test_a_request_that_is_cut_gives_up_what_is_least_likely(given_trees: list[TokenTree], rows_max: int) -> None:
    for tree, before in zip(step_down(given_trees, rows_max), given_trees, strict=True):
        assert sorted(values(tree), reverse=True) == sorted(values(before), reverse=True)[: len(tree)]


@given(BATCHES, COSTS, st.integers(0, 20))
def test_below_the_cap_both_ways_of_cutting_keep_what_pays_and_above_it_both_keep_as_much(
    given_trees: list[TokenTree], costs: tuple[float, float, float], rows_max: int
) -> None:
    base_ms, slope_ms, spent_ms = costs
    its = pace(base_ms, slope_ms)
    value, largest = (cut(kind, given_trees, its, spent_ms, rows_max) for kind in (Cut.VALUE, Cut.LARGEST))
    paying = spend(given_trees, its, spent_ms, 64)
    assert sum(map(len, value)) == sum(map(len, largest))
    if len(paying) + sum(map(len, paying)) <= rows_max:
        assert value == largest == paying
    else:
        assert largest == step_down(paying, rows_max)


def test_the_largest_first_is_fair_and_the_most_likely_first_is_not() -> None:
    sure = TokenTree((1, 2, 3), (ROOT, 0, 1), (0.9, 0.9, 0.9), (1, 1, 1))
    unsure = TokenTree((1, 2), (ROOT, 0), (0.2, 0.2), (1, 1))
    free = pace(slope_ms=0.0)
    fair = cut(Cut.LARGEST, [sure, unsure], free, 5.0, 2 + 3)
    assert [len(tree) for tree in fair] == [1, 2]
    assert cut(Cut.VALUE, [sure, unsure], free, 5.0, 2 + 3) == [sure, TokenTree()]


def test_drafting_that_was_hidden_does_not_make_rows_cheaper() -> None:
    its = pace(base_ms=4.0, slope_ms=1.0)
    waited = spend([BINARY], its, 30.0, 64)
    its.hidden_ms = 30.0
    hidden = spend([BINARY], its, 30.0, 64)
    assert hidden == spend([BINARY], its, 0.0, 64)
    assert len(hidden[0]) < len(waited[0])


def test_an_offer_that_gains_is_always_taken() -> None:
    trials = Trials()
    assert all(trials.allow(1.5) for _ in range(100))


def test_what_loses_is_tried_at_the_start_and_then_now_and_then() -> None:
    trials = Trials()
    taken = [trials.allow(0.5) for _ in range(2000)]
    assert all(taken[:TRIAL_ROUNDS])
    assert 0 < sum(taken[-1000:]) < 0.05 * 1000
    trials.allow(1.5)
    assert not trials.allow(0.5), "what has just been tried is not tried again at once"


@given(st.lists(st.tuples(st.floats(0, 0.999), st.floats(0.5, 12)), min_size=1, max_size=400))
def test_trials_take_no_more_than_their_share_of_the_time(offers: list[tuple[float, float]]) -> None:
    """Rounds of predicted gain and time, in plain rounds. What a trial loses is what it takes beyond what its tokens
    would take plainly; only the run under way may still have to be paid for."""
    trials = Trials(round_count=TRIAL_ROUNDS)
    lost = dearest = 0.0
    for gain, round_cost in offers:
        gain = max(GAIN_LEAST, gain)
        cost = max(round_cost, 1.0 / gain)
        loss = (1.0 - gain) * cost
        dearest = max(dearest, loss)
        if trials.allow(gain, round_cost):
            lost += loss
    assert lost <= TRIAL_SHARE * len(offers) + TRIAL_ROUNDS * dearest + 1e-9


@pytest.mark.parametrize("gain", [0.2, 0.5, 0.8, 0.95])
def test_a_lasting_loss_costs_no_more_than_the_share_of_trials(gain: float) -> None:
    trials, round_cost = Trials(), 3.0 / gain
    offer = Offer((2,), 1, 1, 0.0, (3.0,), gain, time_ms=30.0 / gain, plain_ms=10.0)
    time_ms = tokens = 0.0
    for _ in range(20_000):
        chosen = trials.choose(offer)
        time_ms += chosen.time_ms
        tokens += chosen.gain * chosen.time_ms / chosen.plain_ms
        assert chosen.time_ms in (10.0, 10.0 * round_cost)
    assert tokens < 20_000 * 3.0
    assert time_ms / tokens <= 10.0 * (1.0 + 1.1 * TRIAL_SHARE)


def test_an_offer_that_is_not_taken_is_plain_decoding() -> None:
    offer = Offer((2, 3), 2, 2, 0.1, (2.5, 3.0), 0.5, node_budgets=(9, 9), time_ms=40.0, plain_ms=10.0)
    plain = Trials(round_count=TRIAL_ROUNDS).choose(offer)
    assert (plain.depths, plain.promised, plain.node_budgets) == ((0, 0), (1.0, 1.0), (0, 0))
    assert (plain.gain, plain.time_ms) == (1.0, 10.0)


def drafts(mesh: Mesh) -> list[bool]:
    """Of all plans and batches that were sent, in order: True for a plan."""
    sent = [command for command in mesh.sent if isinstance(command, ev.SendPlan | ev.SendBatch)]
    return [isinstance(command, ev.SendPlan) for command in sent]


def test_a_request_whose_drafts_never_hit_goes_plain_and_now_and_then_tries_again() -> None:
    mesh = Mesh(drafters={"bad": "toy:seed=1,own=9,skill=0"})
    text = mesh.ask("r", count=300)
    mesh.run()
    assert text.tokens == text.plain
    assert 0 < sum(drafts(mesh)[-150:]) < 50


def test_drafters_that_bring_nothing_are_soon_asked_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that waited for nothing is a promise that was not kept, or every round would wait."""

    def bring_nothing(mesh: Mesh, command: ev.SendPlan) -> None:
        for item in command.plan.items:
            nothing = DraftedTree(item.session_id, item.base_length + len(item.token_ids))
            mesh.tell(ev.TreeCame(command.plan.round_id, nothing))
        mesh.tell(ev.PlanDone(command.plan.round_id))

    monkeypatch.setattr(Mesh, "_plan", bring_nothing)
    mesh = Mesh()
    text = mesh.ask("r", count=400)
    mesh.run()
    assert text.tokens == text.plain
    assert 0 < sum(drafts(mesh)[-150:]) < 50
