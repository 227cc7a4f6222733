"""Who is verified next: against enumeration, by what caps, age, priority and deadlines demand; and batches cut up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.batching import WEIGHT, Candidate, Caps, LineTimes, VerifyTimes, choose
from cosine.core.decomposition import CUTS_MAX, decompose
from cosine.core.packing import widest_gaps
from cosine.core.passes import Goal, PassLoad, Size, Tables

FREE = Caps(row_count_max=10**9, token_count_max=10**9, latency_ms_max=math.inf, waited_count_max=10**9)
PADDED = LineTimes(base_ms=10.0, row_ms=0.0, kilotoken_ms=1.0)
GAP_MAX = 0.05
PATIENT = settings(deadline=None)

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Roofline:
    """Reading weights or computing rows, whichever takes longer, and attention over padded caches."""

    weights_ms: float
    row_ms: float
    kilotoken_ms: float

    def verify_ms(self, batch: Size, longest: Size, row_count: Size) -> Size:
        reading_ms: Size = np.maximum(self.weights_ms, self.row_ms * row_count)
        return reading_ms + self.kilotoken_ms * batch * longest / 1000


@dataclass(frozen=True)
class Tiles:
    """Rows in whole tiles of 16."""

    base_ms: float
    tile_ms: float

    def verify_ms(self, batch: Size, longest: Size, row_count: Size) -> Size:
        tiles: Size = np.ceil(row_count / 16)
        return self.base_ms + self.tile_ms * tiles


def short(**more: float) -> Candidate:
    return Candidate(100, 4, 2.0)._replace(**more)  # type: ignore[arg-type]  # a dict of keywords has one type of values


def long(**more: float) -> Candidate:
    return Candidate(8000, 4, 2.0)._replace(**more)  # type: ignore[arg-type]  # a dict of keywords has one type of values


def pass_ms(group: Sequence[Candidate], times: VerifyTimes) -> float:
    return times.verify_ms(len(group), max(one.length for one in group), sum(one.row_count for one in group))


def take(indices: Iterable[int], things: Sequence[Thing]) -> list[Thing]:
    return [things[index] for index in indices]


def within(group: Sequence[Candidate], times: VerifyTimes, caps: Caps) -> bool:
    """Whether a batch keeps all caps."""
    return (
        sum(one.row_count for one in group) <= caps.row_count_max
        and sum(one.length for one in group) <= caps.token_count_max
        and max(one.draft_ms for one in group) + pass_ms(group, times) <= caps.latency_ms_max
    )


# -- the cost, against enumeration


def cost(chosen: Iterable[int], waiting: Sequence[Candidate], times: VerifyTimes, caps: Caps, weight: float) -> float:
    """Time per token of a choice, with what it leaves behind; infinite over a cap."""
    held = set(chosen)
    group = [waiting[index] for index in sorted(held)]
    left = [one for index, one in enumerate(waiting) if index not in held]
    if not within(group, times, caps):
        return math.inf
    time_ms = max(one.draft_ms for one in group) + pass_ms(group, times)
    time_ms += weight * pass_ms(left, times) if left else 0.0
    tokens = sum(max(1.0, one.expected_count) for one in group)
    return time_ms / (tokens + weight * sum(max(1.0, one.expected_count) for one in left))


def least_cost(waiting: Sequence[Candidate], times: VerifyTimes, caps: Caps, weight: float) -> float:
    indices = range(len(waiting))
    sets = (chosen for size in indices for chosen in itertools.combinations(indices, size + 1))
    return min(cost(chosen, waiting, times, caps, weight) for chosen in sets)


def random_pool(dice: np.random.Generator, count: int) -> list[Candidate]:
    """Of one kind or of two in length; few rows, many, or parts of prompts; trees there, or some still due."""
    even, two_kinds = dice.integers(10, 4000, count), np.where(dice.random(count) < 0.5, 150, 6000)
    lengths = even if dice.random() < 0.6 else two_kinds + dice.integers(0, 100, count)
    rows = np.where(dice.random(count) < dice.choice([0.0, 0.3]), 256, dice.integers(1, 40, count))
    expected = dice.random(count) * np.minimum(rows, 7)
    drafts = dice.random(count) * dice.choice([0.0, 0.0, 20.0])
    table = zip(lengths.tolist(), rows.tolist(), expected.tolist(), drafts.tolist(), strict=True)
    return [Candidate(length, row, value, draft_ms=draft) for length, row, value, draft in table]


def random_times(dice: np.random.Generator) -> VerifyTimes:
    base_ms, row_ms = float(dice.choice([1.0, 8.0, 30.0])), float(dice.choice([0.0, 0.05, 0.3, 2.0]))
    kilotoken_ms = float(dice.choice([0.0, 0.2, 1.0, 5.0]))
    models = (LineTimes(base_ms, row_ms, kilotoken_ms), Roofline(base_ms, row_ms, kilotoken_ms), Tiles(base_ms, row_ms))
    return models[dice.choice(3, p=(0.6, 0.2, 0.2))]


def random_caps(dice: np.random.Generator) -> Caps:
    rows, tokens = int(dice.choice([16, 64, 256, 10**6])), int(dice.choice([4000, 10_000, 10**9]))
    return Caps(rows, tokens, float(dice.choice([20.0, 60.0, math.inf, math.inf])), waited_count_max=1)


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_the_costs_of_a_table_are_those_of_its_entries(weight: float) -> None:
    dice = np.random.default_rng(21)
    infinite_count = 0
    for _ in range(100):
        waiting, behind = random_pool(dice, 12), random_pool(dice, int(dice.integers(3)))
        goal = Goal(random_times(dice), random_caps(dice), weight)
        loads = [PassLoad.of(waiting[:end]) for end in range(1, 13)]
        whole = PassLoad.of([*waiting, *behind])
        longest_left = [PassLoad.of([*waiting[end:], *behind]).longest for end in range(1, 13)]
        found = goal.costs(Tables(*map(np.array, zip(*loads, strict=True))), whole, np.array(longest_left))
        pairs = zip(loads, longest_left, strict=True)
        one_by_one = [goal.cost(load, whole, longest) if goal.has_room(load) else math.inf for load, longest in pairs]
        assert found.tolist() == one_by_one
        infinite_count += one_by_one.count(math.inf)
    assert 0 < infinite_count < 12 * 100


@pytest.mark.parametrize("weight", [0.0, 0.5, WEIGHT, 1.0])
def test_the_choice_costs_at_most_a_twentieth_more_than_the_best_there_is(weight: float) -> None:
    dice = np.random.default_rng(int(100 * weight))
    solved_count = 0
    for _ in range(300):
        waiting = random_pool(dice, int(dice.integers(1, 9)))
        times, caps = random_times(dice), random_caps(dice)
        least = least_cost(waiting, times, caps, weight)
        if least < math.inf:
            found = cost(choose(waiting, times, caps, weight), waiting, times, caps, weight)
            assert found <= least * (1 + GAP_MAX), (waiting, times, caps)
            solved_count += 1
    assert solved_count > 200


@pytest.mark.parametrize("weight", [0.0, WEIGHT])
def test_among_many_the_choice_is_no_worse_than_any_prefix_by_length_or_rows(weight: float) -> None:
    dice = np.random.default_rng(7)
    for _ in range(10):
        waiting = random_pool(dice, 256)
        times = random_times(dice)
        found = cost(choose(waiting, times, FREE, weight), waiting, times, FREE, weight)
        for order in (
            sorted(range(256), key=lambda index: waiting[index].length),
            sorted(range(256), key=lambda index: waiting[index].row_count),
        ):
            prefixes = (order[: end + 1] for end in range(0, 256, 5))
            least = min(cost(prefix, waiting, times, FREE, weight) for prefix in prefixes)
            assert found <= least * (1 + GAP_MAX)


def test_without_caps_and_padding_the_choice_of_many_is_the_best_there_is() -> None:
    dice = np.random.default_rng(11)
    times = LineTimes(base_ms=8.0, row_ms=0.3)
    for _ in range(20):
        waiting = [one._replace(draft_ms=0.0) for one in random_pool(dice, 256)]
        order = sorted(range(256), key=lambda index: waiting[index].row_count / waiting[index].worth)
        least = min(cost(order[:end], waiting, times, FREE, weight=0.0) for end in range(1, 257))
        found = cost(choose(waiting, times, FREE, weight=0.0), waiting, times, FREE, weight=0.0)
        assert found == pytest.approx(least)


@pytest.mark.parametrize("caps", [replace(FREE, row_count_max=100), replace(FREE, token_count_max=20_000)])
def test_where_room_is_short_it_goes_to_those_who_bring_most_for_it(caps: Caps) -> None:
    dice = np.random.default_rng(12)
    for _ in range(20):
        waiting = [one._replace(draft_ms=0.0) for one in random_pool(dice, 200)]
        shares = [one.row_count / caps.row_count_max + one.length / caps.token_count_max for one in waiting]
        order = sorted(range(200), key=lambda index: shares[index] / waiting[index].worth)
        room_for = next(end for end in range(1, 200) if not within(take(order[:end], waiting), PADDED, caps))
        brought = sum(one.worth for one in take(choose(waiting, LineTimes(30.0, 0.0), caps), waiting))
        assert brought >= (1 - GAP_MAX) * sum(one.worth for one in take(order[: room_for - 1], waiting))


def test_room_that_is_too_small_for_the_next_best_goes_to_one_that_fits() -> None:
    waiting = [*(Candidate(100, 10, 5.0) for _ in range(20)), Candidate(100, 20, 9.0), Candidate(100, 10, 4.0)]
    chosen = choose(waiting, LineTimes(30.0, 0.3), replace(FREE, row_count_max=215))
    assert sorted(chosen) == [*range(20), 21]


@pytest.mark.parametrize("count", [20, 60])
def test_nobody_is_left_behind_who_fits_and_would_make_the_pass_much_cheaper(count: int) -> None:
    dice = np.random.default_rng(13)
    for _ in range(30):
        waiting, times, caps = random_pool(dice, count), random_times(dice), random_caps(dice)
        chosen = choose(waiting, times, caps)
        spent = cost(chosen, waiting, times, caps, WEIGHT)
        if spent < math.inf:
            left = set(range(count)) - set(chosen)
            with_one_more = [cost([*chosen, index], waiting, times, caps, WEIGHT) for index in left]
            assert min(with_one_more, default=math.inf) >= spent * (1 - GAP_MAX / 2)


def test_of_many_short_and_a_few_long_requests_exactly_the_short_go() -> None:
    waiting = [long(length=8000 + place) if place % 16 == 5 else short(length=100 + place) for place in range(256)]
    chosen = choose(waiting, LineTimes(20.0, 0.05, 0.2), FREE)
    assert sorted(chosen) == [index for index, one in enumerate(waiting) if one.length < 1000]


def test_where_a_pass_costs_the_same_whoever_is_in_it_everybody_goes() -> None:
    waiting = random_pool(np.random.default_rng(3), 40)
    waiting = [one._replace(draft_ms=0.0) for one in waiting]
    assert sorted(choose(waiting, LineTimes(30.0, 0.0), FREE)) == list(range(40))


@PATIENT
@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.floats(0.1, 50), st.floats(0, 5))
def test_at_full_weight_only_padding_leaves_anybody_out(rows: list[int], base_ms: float, row_ms: float) -> None:
    waiting = [Candidate(100 * place, row_count, 1.0) for place, row_count in enumerate(rows)]
    assert sorted(choose(waiting, LineTimes(base_ms, row_ms), FREE, weight=1.0)) == list(range(len(rows)))


def test_a_costly_request_is_skimmed_off_at_no_weight_but_goes_at_the_usual_one() -> None:
    waiting = [*(Candidate(100, 4, 4.0) for _ in range(6)), Candidate(100, 40, 1.0)]
    times = LineTimes(base_ms=8.0, row_ms=0.3)
    assert 6 not in choose(waiting, times, FREE, weight=0.0)
    assert 6 in choose(waiting, times, FREE)


def test_a_request_whose_tree_is_due_long_after_the_others_is_not_waited_for() -> None:
    waiting = [*(Candidate(100, 4, 2.0) for _ in range(6)), Candidate(100, 4, 2.0, draft_ms=80.0)]
    assert sorted(choose(waiting, LineTimes(20.0, 0.3), FREE)) == [0, 1, 2, 3, 4, 5]
    waiting[6] = waiting[6]._replace(draft_ms=0.5)
    assert sorted(choose(waiting, LineTimes(20.0, 0.3), FREE)) == [0, 1, 2, 3, 4, 5, 6]


# -- caps


CANDIDATES = st.builds(
    Candidate,
    length=st.integers(0, 5000),
    row_count=st.integers(1, 300),
    expected_count=st.floats(0, 8),
    waited_count=st.integers(0, 6),
    priority=st.integers(-1, 1),
    deadline_ms=st.none() | st.floats(0, 200),
    draft_ms=st.sampled_from([0.0, 0.0, 5.0, 30.0]),
    pass_count=st.integers(1, 8),
)
TIMES = st.builds(
    LineTimes, st.sampled_from([0.0, 2.0, 20.0]), st.sampled_from([0.0, 0.05, 1.0]), st.sampled_from([0.0, 0.2, 5.0])
)
CAPS = st.builds(
    Caps,
    st.sampled_from([1, 64, 512, 10**9]),
    st.sampled_from([500, 6000, 10**9]),
    st.sampled_from([5.0, 50.0, math.inf]),
    st.sampled_from([0, 3, 10**9]),
)


@PATIENT
@given(st.lists(CANDIDATES, min_size=1, max_size=12), TIMES, CAPS, st.floats(0, 1))
def test_somebody_goes_nobody_twice_and_more_than_one_only_within_the_caps(
    waiting: list[Candidate], times: LineTimes, caps: Caps, weight: float
) -> None:
    chosen = choose(waiting, times, caps, weight)
    assert chosen
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(len(waiting)))
    assert len(chosen) == 1 or within([waiting[index] for index in chosen], times, caps)


@PATIENT
@given(st.lists(CANDIDATES, min_size=1, max_size=12), TIMES, CAPS)
def test_the_same_question_has_the_same_answer(waiting: list[Candidate], times: LineTimes, caps: Caps) -> None:
    assert choose(waiting, times, caps) == choose(list(waiting), times, caps)


def test_nobody_goes_where_nobody_waits() -> None:
    assert choose([], PADDED, FREE) == []


@pytest.mark.parametrize(
    "caps",
    [replace(FREE, row_count_max=3), replace(FREE, token_count_max=50), replace(FREE, latency_ms_max=5.0)],
    ids=["rows", "tokens", "latency"],
)
def test_a_request_over_a_cap_goes_alone_where_all_are(caps: Caps) -> None:
    assert choose([short(), short(waited_count=2), short(priority=-1)], PADDED, caps) == [1]


def test_a_request_over_a_cap_lets_others_pass_until_it_is_overdue() -> None:
    caps = replace(FREE, row_count_max=64, waited_count_max=3)
    prompt = Candidate(0, 256, 1.0)
    assert sorted(choose([prompt._replace(waited_count=2), short(), short()], PADDED, caps)) == [1, 2]
    assert choose([short(), prompt._replace(waited_count=3), short()], PADDED, caps) == [1]


def test_where_cached_tokens_fill_their_cap_those_who_have_none_still_go() -> None:
    caps = replace(FREE, token_count_max=8000, waited_count_max=3)
    waiting = [long(waited_count=3), short(), Candidate(0, 4, 1.0), Candidate(0, 4, 1.0)]
    assert sorted(choose(waiting, LineTimes(30.0, 0.0), caps)) == [0, 2, 3]


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="give one from 0"):
        choose([short()], PADDED, FREE, weight)


# -- who must go


def test_the_overdue_go_first_and_the_oldest_before_all() -> None:
    caps = replace(FREE, waited_count_max=3)
    waiting = [short(priority=9), long(waited_count=3, priority=-1), short(), long(waited_count=5), short()]
    assert choose(waiting, PADDED, caps)[:2] == [3, 1]
    fresh = [one._replace(waited_count=0) for one in waiting]
    assert not {1, 3} & set(choose(fresh, PADDED, caps))


def test_of_the_overdue_as_many_go_as_fit() -> None:
    caps = replace(FREE, row_count_max=10, waited_count_max=3)
    waiting = [short(waited_count=4), short(waited_count=7), short(waited_count=4), short(waited_count=9)]
    assert choose(waiting, PADDED, caps) == [3, 1]


RANKED = st.builds(
    Candidate,
    length=st.integers(0, 5000),
    row_count=st.integers(1, 64),
    expected_count=st.floats(0, 8),
    waited_count=st.just(0),
    priority=st.integers(0, 3),
    deadline_ms=st.none() | st.floats(0, 200),
    draft_ms=st.just(0.0),
    pass_count=st.sampled_from([1, 1, 4]),
)


@PATIENT
@given(st.lists(RANKED, min_size=1, max_size=14), TIMES, st.sampled_from([64, 200]), st.floats(0, 1))
def test_who_goes_of_a_priority_does_not_depend_on_lower_ones(
    waiting: list[Candidate], times: LineTimes, row_count_max: int, weight: float
) -> None:
    caps = replace(FREE, row_count_max=row_count_max)
    chosen = choose(waiting, times, caps, weight)
    for priority in {one.priority for one in waiting}:
        above = [index for index, one in enumerate(waiting) if one.priority >= priority]
        alone = choose([waiting[index] for index in above], times, caps, weight)
        assert [above[place] for place in alone] == [index for index in chosen if index in set(above)]


def test_who_goes_of_a_priority_does_not_depend_on_many_lower_ones_either() -> None:
    dice = np.random.default_rng(14)
    for _ in range(30):
        times, caps = random_times(dice), random_caps(dice)
        pool = [one._replace(row_count=min(one.row_count, 16)) for one in random_pool(dice, 80)]
        waiting = [one._replace(length=one.length // 2, priority=int(dice.integers(3))) for one in pool]
        caps = replace(caps, latency_ms_max=math.inf)
        above = [index for index, one in enumerate(waiting) if one.priority == 2]
        alone = take(choose(take(above, waiting), times, caps), above)
        assert alone == [index for index in choose(waiting, times, caps) if waiting[index].priority == 2]


def test_a_costly_request_waits_for_the_pass_that_a_higher_priority_needs_anyway() -> None:
    times = LineTimes(base_ms=20.0, row_ms=0.3)
    waiting = [Candidate(100, 60, 1.0), *(short(priority=1) for _ in range(6))]
    assert 0 in choose(waiting, times, FREE)
    assert sorted(choose([*waiting, short(priority=1, draft_ms=200.0)], times, FREE)) == [1, 2, 3, 4, 5, 6]


def test_a_priority_goes_first_where_there_is_room_for_one() -> None:
    caps = replace(FREE, row_count_max=6)
    assert choose([short(), short(), short(priority=1, expected_count=1.0)], PADDED, caps) == [2]


def test_a_lower_priority_rides_along_where_there_is_room() -> None:
    assert choose([short(), short(priority=1)], PADDED, FREE) == [1, 0]


@pytest.mark.parametrize(
    ("deadline_ms", "expected"),
    [(None, [1, 2, 3, 4]), (1000.0, [1, 2, 3, 4]), (25.0, [0]), (5.0, [1, 2, 3, 4])],
    ids=["none", "far", "pressing, and met alone only", "lost already"],
)
def test_a_deadline_that_would_pass_while_waiting_is_met_and_one_that_is_lost_is_no_reason(
    deadline_ms: float | None, expected: list[int]
) -> None:
    waiting = [long()._replace(deadline_ms=deadline_ms), *(short() for _ in range(4))]
    assert sorted(choose(waiting, PADDED, FREE)) == expected


def test_of_two_that_press_the_earlier_deadline_comes_first() -> None:
    caps = replace(FREE, row_count_max=6)
    waiting = [short(), short(deadline_ms=14.0), short(deadline_ms=12.0)]
    assert choose(waiting, PADDED, caps) == [2]


@PATIENT
@given(st.lists(RANKED, min_size=1, max_size=10), TIMES)
def test_whoever_is_taken_because_a_deadline_presses_meets_it(waiting: list[Candidate], times: LineTimes) -> None:
    waiting = [one._replace(priority=0) for one in waiting]
    chosen = choose(waiting, times, FREE)
    whole_ms, taken_ms = pass_ms(waiting, times), pass_ms([waiting[index] for index in chosen], times)
    last = [one for one in waiting if one.pass_count == 1]
    dated = [(one.deadline_ms, pass_ms([one], times)) for one in last if one.deadline_ms is not None]
    pressing = [left_ms for left_ms, alone_ms in dated if alone_ms <= left_ms < whole_ms + alone_ms]
    if pressing:
        assert taken_ms <= min(pressing)


def test_one_that_needs_further_passes_goes_first_where_there_is_room_for_one() -> None:
    caps = replace(FREE, row_count_max=6)
    pressed = short(deadline_ms=70.0, pass_count=5)
    assert choose([short(), pressed, short(deadline_ms=71.0, pass_count=5)], PADDED, caps) == [1]
    assert choose([short(expected_count=9.0), pressed._replace(deadline_ms=10_000.0)], PADDED, caps) == [0], "no haste"
    assert choose([pressed, short(deadline_ms=20.0)], PADDED, caps) == [1], "what a last pass misses is lost"


def test_nobody_is_left_out_for_one_that_needs_further_passes() -> None:
    times, heavy = LineTimes(8.0, 0.5), Candidate(100, 12, 3.0)
    waiting = [heavy._replace(deadline_ms=600.0, pass_count=20), *[heavy] * 19]
    assert choose(waiting, times, FREE)[0] == 0
    assert len(choose(waiting, times, FREE)) == 20
    ending = [heavy._replace(deadline_ms=30.0), *[heavy] * 19]
    assert len(choose(ending, times, FREE)) == 3, "the last pass is cut to what is left"


@PATIENT
@given(st.lists(RANKED, min_size=1, max_size=10), st.integers(0, 9), TIMES, CAPS)
def test_one_that_would_be_late_even_alone_changes_nothing(
    waiting: list[Candidate], place: int, times: LineTimes, caps: Caps
) -> None:
    place %= len(waiting)
    alone_ms = pass_ms([waiting[place]], times)
    waiting[place] = waiting[place]._replace(deadline_ms=0.99 * alone_ms * 4, pass_count=4)
    undated = [one._replace(deadline_ms=None) if index == place else one for index, one in enumerate(waiting)]
    if alone_ms:
        assert choose(waiting, times, caps) == choose(undated, times, caps)


@PATIENT
@given(st.lists(RANKED, min_size=1, max_size=10), st.floats(0.1, 50), st.floats(0, 5))
def test_at_full_weight_deadlines_of_further_passes_leave_nobody_out(
    waiting: list[Candidate], base_ms: float, row_ms: float
) -> None:
    waiting = [one._replace(priority=0, pass_count=4) for one in waiting]
    assert sorted(choose(waiting, LineTimes(base_ms, row_ms), FREE, weight=1.0)) == list(range(len(waiting)))


# -- nobody waits for ever


@dataclass
class Waiter:
    """A request that waits, and how many it found waiting."""

    candidate: Candidate
    found_count: int


def rounds(arrivals: Sequence[Sequence[Candidate]], times: LineTimes, caps: Caps) -> Iterator[list[Waiter]]:
    """Who waits after each round, with one round per arrival, and then until all have gone."""
    waiting: list[Waiter] = []
    queue = list(arrivals)
    while queue or waiting:
        for candidate in queue.pop(0) if queue else ():
            waiting.append(Waiter(candidate._replace(waited_count=0), len(waiting)))
        chosen = set(choose([waiter.candidate for waiter in waiting], times, caps))
        waiting = [waiter for index, waiter in enumerate(waiting) if index not in chosen]
        for waiter in waiting:
            waiter.candidate = waiter.candidate._replace(waited_count=waiter.candidate.waited_count + 1)
        yield waiting


@settings(PATIENT, max_examples=60)
@given(st.lists(st.lists(CANDIDATES, max_size=4), min_size=5, max_size=25), TIMES, CAPS, st.integers(0, 4))
def test_nobody_is_passed_over_more_often_than_the_bound_says(
    arrivals: list[list[Candidate]], times: LineTimes, caps: Caps, waited_count_max: int
) -> None:
    caps = replace(caps, waited_count_max=waited_count_max)
    for waiting in rounds(arrivals, times, caps):
        for waiter in waiting:
            assert waiter.candidate.waited_count <= waited_count_max + waiter.found_count


def test_a_stream_of_better_requests_holds_one_up_for_exactly_the_bound() -> None:
    caps = replace(FREE, row_count_max=8, waited_count_max=5)
    arrivals = [[long(priority=-1)], *([short(priority=1), short(priority=1)] for _ in range(12))]
    arrivals[0] += arrivals[1]
    waits = [
        waiter.candidate.waited_count
        for waiting in rounds(arrivals, PADDED, caps)
        for waiter in waiting
        if waiter.candidate.priority < 0
    ]
    assert waits == [1, 2, 3, 4, 5]


# -- decomposition


def total_ms(groups: Sequence[Sequence[int]], batch: Sequence[Candidate], times: VerifyTimes) -> float:
    return sum(pass_ms([batch[index] for index in group], times) for group in groups)


def partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    """All ways to divide into groups."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]


@PATIENT
@given(st.lists(CANDIDATES, min_size=1, max_size=6), TIMES)
def test_no_division_of_a_batch_takes_less_time(batch: list[Candidate], times: LineTimes) -> None:
    least_ms = min(total_ms(groups, batch, times) for groups in partitions(range(len(batch))))
    assert total_ms(decompose(batch, times), batch, times) == pytest.approx(least_ms)


@pytest.mark.parametrize("count", [CUTS_MAX // 2, 200])
def test_a_divided_batch_is_whole_and_takes_no_longer_than_one_pass(count: int) -> None:
    dice = np.random.default_rng(5)
    for _ in range(20):
        batch, times = random_pool(dice, count), random_times(dice)
        groups = decompose(batch, times)
        assert sorted(index for group in groups for index in group) == list(range(count))
        assert total_ms(groups, batch, times) <= pass_ms(batch, times) * (1 + 1e-9)


def test_two_kinds_of_lengths_go_apart_where_padding_costs_more_than_a_pass() -> None:
    batch = [long(), short(), long(), short(), short()]
    assert decompose(batch, PADDED) == [[1, 3, 4], [0, 2]]
    assert decompose(batch, replace(PADDED, base_ms=30.0)) == [[0, 1, 2, 3, 4]]


def test_the_group_with_the_least_time_per_token_comes_first() -> None:
    batch = [long(expected_count=60.0), short(), short(), long(expected_count=60.0)]
    assert decompose(batch, PADDED) == [[0, 3], [1, 2]]


@pytest.mark.parametrize("row_ms", [0.0, 0.1, 0.3])
def test_passes_of_equal_total_time_are_one(row_ms: float) -> None:
    batch = [Candidate(100 * place, 1 + place % 7, 1.0) for place in range(30)]
    assert decompose(batch, LineTimes(0.0, row_ms)) == [list(range(30))]


def test_an_empty_batch_has_no_groups() -> None:
    assert decompose([], PADDED) == []


def test_many_lengths_are_cut_at_their_widest_gaps() -> None:
    batch = [Candidate(place + (5000 if place >= 150 else 0), 1, 1.0) for place in range(200)]
    assert decompose(batch, PADDED) == [list(range(150)), list(range(150, 200))]


# -- where to cut


@PATIENT
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.integers(1, 20))
def test_cuts_ascend_lie_on_values_and_end_at_the_largest(values: list[int], count_max: int) -> None:
    cuts = widest_gaps(np.array(values), count_max)
    assert cuts == sorted(set(cuts))
    assert set(cuts) <= set(values)
    assert cuts[-1] == max(values)
    assert len(cuts) == min(count_max, len(set(values)))


def test_cuts_go_where_the_next_value_is_far() -> None:
    assert widest_gaps(np.array([1, 2, 3, 90, 91, 92, 500, 501]), 3) == [3, 92, 501]
    assert widest_gaps(np.array([1, 2, 40, 41, 80, 81]), 2) == [41, 81]
    assert widest_gaps(np.array([1, 2, 40, 41, 80, 81]), 1) == [81]
