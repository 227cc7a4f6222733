"""The bandit finds the drafter of the most tokens per second per kind of text; the matching is the best there is."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.bandit import EXACT_REQUESTS_MAX, TRIES_MIN, UNASSIGNED, Bandit, assign, match

VERIFY_S = 0.030
DEPTH = 4


@dataclass(frozen=True)
class Simulated:
    """A drafter: seconds per token, and how often its next token is right in texts of each kind."""

    token_s: float
    skill: dict[str, float]


# The small one is the best for easy texts because it is fast, the large one for hard texts because it is right.
# What is accepted most is the large one's everywhere.
DRAFTERS = {
    "large": Simulated(0.008, {"easy": 0.90, "hard": 0.75}),
    "medium": Simulated(0.005, {"easy": 0.70, "hard": 0.30}),
    "small": Simulated(0.002, {"easy": 0.80, "hard": 0.10}),
}
NAMES = tuple(DRAFTERS)
BEST = {"easy": "small", "hard": "large"}


@dataclass
class Request:
    """A request of one kind that plays rounds against simulated drafters."""

    kind: str
    dice: random.Random
    bandit: Bandit = field(default_factory=Bandit)
    used: list[str] = field(default_factory=list)

    def play(self, drafter: str) -> None:
        simulated = DRAFTERS[drafter]
        accepted = 0
        while accepted < DEPTH and self.dice.random() < simulated.skill[self.kind]:
            accepted += 1
        self.bandit.note(drafter, accepted + 1, VERIFY_S + DEPTH * simulated.token_s)
        self.used.append(drafter)


def play(kinds: list[str], capacities: list[int], round_count: int) -> list[Request]:
    """Rounds of a batch of requests that share the drafters."""
    requests = [Request(kind, random.Random(number)) for number, kind in enumerate(kinds)]
    for _ in range(round_count):
        for request, drafter in zip(
            requests, assign([request.bandit for request in requests], NAMES, capacities), strict=True
        ):
            if drafter:
                request.play(drafter)
    return requests


def expected_goodput(drafter: str, kind: str) -> float:
    simulated = DRAFTERS[drafter]
    tokens = sum(simulated.skill[kind] ** count for count in range(DEPTH + 1))
    return tokens / (VERIFY_S + DEPTH * simulated.token_s)


def test_the_simulated_kinds_differ_in_their_best_drafter() -> None:
    for kind, best in BEST.items():
        assert max(NAMES, key=lambda name: expected_goodput(name, kind)) == best


def test_each_kind_of_request_converges_to_the_drafter_of_the_most_tokens_per_second() -> None:
    requests = play(["easy", "hard"] * 24, [48, 48, 48], 160)
    for kind, best in BEST.items():
        late = Counter(drafter for request in requests if request.kind == kind for drafter in request.used[80:])
        assert late[best] > 0.85 * late.total(), (kind, late)


def test_every_drafter_is_tried_before_any_is_exploited() -> None:
    (request,) = play(["easy"], [1, 1, 1], TRIES_MIN * len(NAMES))
    assert Counter(request.used) == dict.fromkeys(NAMES, TRIES_MIN)


def test_a_drafter_that_becomes_the_best_is_found_again() -> None:
    bandit = Bandit()
    for number in range(400):
        (drafter,) = assign([bandit], ("a", "b"), [1, 1])
        fast = "a" if number < 100 else "b"
        bandit.note(drafter, 4 if drafter == fast else 3, 0.05)
        last = drafter
    assert last == "b"


def test_where_the_best_drafter_is_full_it_goes_to_those_who_gain_most_by_it() -> None:
    requests = play(["easy"] * 4 + ["hard"] * 4, [4, 8, 4], 120)
    for request in requests:
        late = Counter(request.used[60:])
        assert late.most_common(1)[0][0] == BEST[request.kind]


def test_no_drafter_gets_more_requests_than_it_takes_and_who_finds_no_room_gets_none() -> None:
    chosen = assign([Bandit() for _ in range(7)], NAMES, [2, 0, 3])
    assert Counter(chosen) == {"large": 2, "small": 3, "": 2}
    assert assign([Bandit()], (), []) == [""]
    assert assign([], NAMES, [1, 1, 1]) == []


def test_a_batch_beyond_the_exact_solvers_bound_still_respects_capacities() -> None:
    count = EXACT_REQUESTS_MAX + 10
    chosen = Counter(assign([Bandit() for _ in range(count)], NAMES, [count - 8, 3, 2]))
    assert chosen == {"large": count - 8, "medium": 3, "small": 2, "": 3}


def test_a_round_of_no_length_teaches_nothing() -> None:
    bandit = Bandit()
    bandit.note("a", 3, 0.0)
    assert bandit == Bandit()


def best_total(worth: list[list[float]], capacities: list[int]) -> float:
    """The greatest total worth over all assignments, each of which is looked at (but no remaining room twice)."""
    best = {tuple(capacities): 0.0}
    for row in worth:
        after = dict(best)  # the row is left out
        for room, total in best.items():
            for column, value in enumerate(row):
                if room[column]:
                    left = (*room[:column], room[column] - 1, *room[column + 1 :])
                    after[left] = max(after.get(left, 0.0), total + value)
        best = after
    return max(best.values())


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    columns = draw(st.integers(1, 5))
    # Few different values make ties and equal alternatives frequent.
    values = st.one_of(st.integers(0, 4).map(float), st.floats(0, 100, allow_subnormal=False))
    worth = draw(st.lists(st.lists(values, min_size=columns, max_size=columns), max_size=10))
    return worth, draw(st.lists(st.integers(0, 4), min_size=columns, max_size=columns))


@settings(max_examples=300)
@given(problems())
def test_the_matching_is_as_good_as_the_best_of_all_assignments(problem: tuple[list[list[float]], list[int]]) -> None:
    worth, capacities = problem
    table = np.array(worth, dtype=np.float64).reshape(len(worth), len(capacities))
    chosen = match(table, np.array(capacities, dtype=np.int64))
    used = Counter(int(column) for column in chosen)
    assert all(used[column] <= capacity for column, capacity in enumerate(capacities))
    total = sum(worth[row][column] for row, column in enumerate(chosen) if column != UNASSIGNED)
    assert total == pytest.approx(best_total(worth, capacities))


def test_a_displacement_may_run_over_several_columns() -> None:
    worth = np.array([[9.0, 8.0, 0.0], [0.0, 9.0, 8.0], [10.0, 0.0, 0.0]])
    assert match(worth, np.array([1, 1, 1])).tolist() == [1, 2, 0]
