"""Picks against the plainest definition of each rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cosine.core.noise import gumbel
from cosine.core.picking import (
    RowRule,
    keep_likely,
    log_softmax,
    penalize,
    pick,
    pick_rows,
    scores,
    softmax,
    top_children,
)
from cosine.core.sampling import Sampling

VOCAB_SIZE = 12
ROWS = st.integers(0, 2**32 - 1).map(lambda seed: row_of(seed))
TOKENS = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=8)
CHANCE = st.floats(0.01, 0.99).map(lambda value: round(value, 3) + 1e-5)


def row_of(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, VOCAB_SIZE).astype(np.float32)


def row(*logits: float) -> NDArray[np.float32]:
    return np.array(logits, dtype=np.float32)


def rule(position: int = 0, **sampling: Any) -> RowRule:
    return RowRule(Sampling(**sampling), position)


def chances(logits: list[float]) -> list[float]:
    """Softmax by its definition."""
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def likely(logits: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    """The tokens that the three filters leave, one after the other, each on what the last one left."""
    left = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if top_k:
        edge = logits[left[min(top_k, len(left)) - 1]]
        left = [token for token in left if logits[token] >= edge]
    if top_p < 1:
        share = chances([logits[token] for token in left])
        count = next((n for n in range(1, len(left) + 1) if math.fsum(share[:n]) >= top_p), len(left))
        left = left[:count]
    if min_p > 0:
        share = chances([logits[token] for token in left])
        left = [token for token, chance in zip(left, share, strict=True) if chance >= min_p * max(share)]
    return set(left)


@given(ROWS, st.integers(0, VOCAB_SIZE + 2), st.one_of(st.just(1.0), CHANCE), st.one_of(st.just(0.0), CHANCE))
def test_filters_leave_what_their_definitions_leave(
    logits: NDArray[np.float32], top_k: int, top_p: float, min_p: float
) -> None:
    kept = keep_likely(logits.astype(np.float64), Sampling(temperature=1, top_k=top_k, top_p=top_p, min_p=min_p))
    assert set(np.flatnonzero(np.isfinite(kept))) == likely(logits.tolist(), top_k, top_p, min_p)
    alive = np.isfinite(kept)
    np.testing.assert_array_equal(kept[alive], logits[alive])


def test_top_k_keeps_all_that_tie_for_the_last_place() -> None:
    kept = keep_likely(np.array([1.0, 3.0, 2.0, 2.0, 0.0]), Sampling(temperature=1, top_k=2))
    assert np.isfinite(kept).tolist() == [False, True, True, True, False]


def test_top_p_keeps_the_token_that_crosses_it_and_of_equal_ones_the_lowest_ids() -> None:
    kept = keep_likely(np.log([0.3, 0.3, 0.3, 0.1]), Sampling(temperature=1, top_p=0.5))
    assert np.isfinite(kept).tolist() == [True, True, False, False]


def test_the_most_likely_token_survives_the_hardest_filters() -> None:
    hardest = Sampling(temperature=1, top_k=1, top_p=1e-9, min_p=0.999)
    assert np.isfinite(keep_likely(np.array([0.0, 5.0, 1.0]), hardest)).tolist() == [False, True, False]


@given(ROWS, TOKENS, TOKENS, st.floats(0.2, 3), st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_are_what_their_definitions_say(
    logits: NDArray[np.float32],
    prompt: list[int],
    output: list[int],
    repetition: float,
    presence: float,
    frequency: float,
) -> None:
    sampling = Sampling(repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency)
    expected = [float(value) for value in logits]
    for token in range(VOCAB_SIZE):
        if token in prompt or token in output:
            expected[token] *= 1 / repetition if expected[token] > 0 else repetition
        if token in output:
            expected[token] -= presence + frequency * output.count(token)
    np.testing.assert_allclose(penalize(logits, sampling, prompt, output), expected, rtol=1e-12, atol=1e-12)


def test_penalties_leave_the_given_row_alone() -> None:
    logits = row(1, 2, 3)
    penalize(logits, Sampling(repetition_penalty=2, presence_penalty=1), [0], [1, 2])
    scores(logits, rule(logit_bias=((0, 5.0),), temperature=0.5, top_k=1))
    assert logits.tolist() == [1, 2, 3]


def test_greedy_takes_the_largest_and_of_equal_ones_the_lowest_id() -> None:
    assert pick(row(1, 3, 2, 3), rule()) == 1
    assert pick_rows(np.stack([row(1, 3, 2, 3), row(5, 5, 5, 5)]), [rule(), rule()]) == [1, 0]
    assert top_children(row(1, 3, 2, 3), rule(), 3)[0] == [1, 3, 2]


def test_bias_is_added_before_everything_else() -> None:
    assert pick(row(1, 3, 2), rule(logit_bias=((0, 4.0),))) == 0
    assert pick(row(1, 3, 2), rule(logit_bias=((1, -100.0),), temperature=0.01)) == 2
    assert pick(row(1, 3, 2), rule(logit_bias=((2, 50.0),), temperature=1.0, top_k=1)) == 2


def test_bias_given_twice_for_a_token_counts_twice() -> None:
    assert scores(row(0, 0), rule(logit_bias=((1, 1.0), (1, 2.0)))).tolist() == [0, 3]


@given(ROWS, st.floats(0.1, 5), st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_a_score_is_the_scaled_logit_and_the_shared_noise(
    logits: NDArray[np.float32], temperature: float, seed: int, position: int
) -> None:
    expected = logits / np.float64(temperature) + gumbel(seed, position, VOCAB_SIZE)
    found = scores(logits, rule(position, temperature=temperature, seed=seed))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert pick(logits, rule(position, temperature=temperature, seed=seed)) == int(np.argmax(found))


@given(ROWS, st.integers(0, 100), st.integers(1, VOCAB_SIZE))
def test_a_pick_never_leaves_what_the_filters_left(logits: NDArray[np.float32], seed: int, top_k: int) -> None:
    found = pick(logits, rule(temperature=3.0, seed=seed, top_k=top_k, top_p=0.8, min_p=0.05))
    assert found in likely([value / 3 for value in logits.astype(float).tolist()], top_k, 0.8, 0.05)


def test_the_same_seed_and_position_pick_the_same_and_others_differ() -> None:
    flat = np.zeros(1000, dtype=np.float32)
    picks = {(seed, at): pick(flat, rule(at, temperature=1.0, seed=seed)) for seed in range(5) for at in range(5)}
    again = {(seed, at): pick(flat, rule(at, temperature=1.0, seed=seed)) for seed, at in picks}
    assert picks == again
    assert len(set(picks.values())) > 20


def test_picks_along_positions_follow_the_softmax() -> None:
    logits, count = row(0.0, 1.0, 2.0, -1.0), 12_000
    shares = softmax(logits / 1.5)
    found = np.bincount([pick(logits, rule(at, temperature=1.5, seed=9)) for at in range(count)], minlength=4)
    assert float(((found - count * shares) ** 2 / (count * shares)).sum()) < 16.3, "chi square, 3 degrees, 0.1 %"


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(0, 9))
def test_picking_rows_together_equals_picking_each(rows: list[NDArray[np.float32]], seed: int) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "seed": seed},
        {"logit_bias": ((3, 9.0),)},
        {"temperature": 0.7, "top_p": 0.9, "seed": seed},
    ]
    rules = [rule(at, **kinds[at]) for at in range(len(rows))]
    assert pick_rows(np.stack(rows), rules) == [pick(one, its) for one, its in zip(rows, rules, strict=True)]


@given(ROWS, st.integers(1, VOCAB_SIZE + 3), st.sampled_from([0.0, 0.6, 1.3]), st.integers(0, 5))
def test_children_are_the_best_scores_with_their_softmax_as_confidence(
    logits: NDArray[np.float32], width: int, temperature: float, top_k: int
) -> None:
    its = rule(4, temperature=temperature, seed=2, top_k=top_k)
    score = [float(value) for value in scores(logits, its)]
    ranked = sorted(range(VOCAB_SIZE), key=lambda token: (-score[token], token))
    share = chances(score)
    alive = [token for token in ranked[:width] if share[token] > 0]
    tokens, confidences = top_children(logits, its, width)
    assert tokens == alive
    assert confidences == pytest.approx([share[token] for token in alive])
    assert tokens[0] == pick(logits, its)


@given(ROWS)
def test_log_softmax_is_the_logarithm_of_the_chances(logits: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(np.exp(log_softmax(logits)), chances(logits.tolist()), rtol=1e-12)
    assert softmax(logits + np.float32(1e4)).sum() == pytest.approx(1)
