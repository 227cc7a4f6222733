"""The engine's picks, on the host and on a device, against `core.picking` row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cosine.core.noise import gumbel as core_gumbel
from cosine.core.noise import row_key
from cosine.core.picking import RowRule, log_softmax, pick, scores
from cosine.core.sampling import GREEDY, Sampling
from cosine.engine.base import Logits
from cosine.engine.hf.device_picking import DeviceLogits, _signed, gumbel
from cosine.engine.hf.picking import HostLogits, NoiseCache, on_host

VOCAB_SIZE = 61

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    seed=st.integers(0, 3),
    top_k=st.sampled_from([0, 1, 5, 61, 100]),
    top_p=st.sampled_from([1.0, 0.873, 0.419]),  # 0.4 of five equal tokens is a matter of rounding, on each device anew
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    logit_bias=st.sampled_from([(), ((3, 4.5), (60, -2.0))]),
)
rule_lists = st.lists(st.builds(RowRule, samplings, st.integers(0, 4)), min_size=1, max_size=7)


def make(kind: str, rows: NDArray[np.float32]) -> Logits:
    if kind == "host":
        return HostLogits(rows, NoiseCache(VOCAB_SIZE))
    return DeviceLogits(torch.from_numpy(rows))


def coarse_rows(seed: int, count: int) -> NDArray[np.float32]:
    """Logits with many exact ties, as bfloat16 models have."""
    dice = np.random.default_rng(seed)
    return (np.round(dice.normal(size=(count, VOCAB_SIZE)) * 2) / 2).astype(np.float32)


def slow_children(row: NDArray[np.float32], rule: RowRule, width: int) -> tuple[list[int], list[float]]:
    score = scores(row, rule)
    order = sorted(range(VOCAB_SIZE), key=lambda token: (-score[token], token))[:width]
    weights = np.exp(score - score.max())
    kept = [token for token in order if weights[token] > 0]
    return kept, [float(weights[token] / weights.sum()) for token in kept]


@pytest.mark.parametrize("kind", ["host", "device"])
@settings(deadline=None, max_examples=150)
@given(rules=rule_lists, seed=st.integers(0, 1000))
def test_picks_equal_the_core(kind: str, rules: list[RowRule], seed: int) -> None:
    rows = coarse_rows(seed, len(rules))
    assert make(kind, rows).picks(rules) == [pick(row, rule) for row, rule in zip(rows, rules, strict=True)]


@pytest.mark.parametrize("kind", ["host", "device"])
@settings(deadline=None, max_examples=150)
@given(rules=rule_lists, seed=st.integers(0, 1000), width=st.sampled_from([1, 2, 4, 16, 17, 61, 70]))
def test_children_equal_the_core_with_the_lowest_id_at_ties(
    kind: str, rules: list[RowRule], seed: int, width: int
) -> None:
    rows = coarse_rows(seed, len(rules))
    wanted = list(range(len(rules)))[::-1]
    found = make(kind, rows).children(wanted, [rules[row] for row in wanted], width)
    for row, (token_ids, confidences) in zip(wanted, found, strict=True):
        expected_ids, expected_confidences = slow_children(rows[row], rules[row], width)
        assert token_ids == expected_ids
        np.testing.assert_allclose(confidences, expected_confidences, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**31))
def test_noise_on_the_device_equals_the_core(seed: int, position: int) -> None:
    found = gumbel(torch.tensor([_signed(row_key(seed, position))]), VOCAB_SIZE)[0].numpy()
    np.testing.assert_allclose(found, core_gumbel(seed, position, VOCAB_SIZE), rtol=1e-13)


def test_the_noise_cache_forgets_the_oldest_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosine.engine.hf.picking.NOISE_BYTES_MAX", 0)
    cache = NoiseCache(VOCAB_SIZE)
    for position in [*range(12), *range(12)]:
        np.testing.assert_array_equal(cache.row(5, position), core_gumbel(5, position, VOCAB_SIZE))
    assert len(cache._rows) == 8


def overflown(dtype: torch.dtype) -> torch.Tensor:
    """A row without numbers, one with a few, one whose largest is infinite, one of minus infinity, and a sound one."""
    rows = torch.from_numpy(coarse_rows(1, 5)).to(dtype)
    rows[0] = float("nan")
    rows[1, 7:50] = float("nan")
    rows[2, 9], rows[2, 5] = float("inf"), float("nan")
    rows[3] = float("-inf")
    return rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(1.0, seed=3),
        Sampling(0.5, seed=4, top_k=5, top_p=0.9, min_p=0.1),
        Sampling(logit_bias=((3, 4.5),)),
    ],
)
def test_logits_that_are_no_numbers_give_the_same_tokens_of_the_vocabulary_everywhere(
    dtype: torch.dtype, sampling: Sampling
) -> None:
    rows = overflown(dtype)
    rules = [RowRule(sampling, position) for position in range(len(rows))]
    host, device = on_host(rows, NoiseCache(VOCAB_SIZE)), DeviceLogits(rows)
    picks = host.picks(rules)
    assert picks == device.picks(rules)
    assert all(0 <= token < VOCAB_SIZE for token in picks)
    assert (picks[1] in range(7, 50), picks[2]) == (False, 9)
    for width in (2, 20):
        found = host.children(range(len(rows)), rules, width)
        for (token_ids, confidences), (ids_there, confidences_there) in zip(
            found, device.children(range(len(rows)), rules, width), strict=True
        ):
            assert token_ids == ids_there
            np.testing.assert_allclose(confidences, confidences_there, rtol=1e-9)
        assert [token_ids[0] for token_ids, _ in found] == picks
    for logits in (host, device):
        assert all(np.isfinite(log_softmax(logits.row(row))).all() for row in range(len(rows)))
