"""Shared noise: the published bits everywhere, a Gumbel law, and no memory between positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosine.core import noise

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/noise.json").read_text())
EULER = 0.5772156649015329
SAMPLES = 200_000


def test_mixing_is_splitmix64s() -> None:
    assert {value: hex(noise.mix(int(value))) for value in VECTORS["mix"]} == VECTORS["mix"]


@pytest.mark.parametrize("seed", VECTORS["splitmix64_stream_of_seed"])
def test_a_row_of_mixes_is_splitmix64s_published_stream(seed: str) -> None:
    published = [int(value, 16) for value in VECTORS["splitmix64_stream_of_seed"][seed]]
    assert [noise.mix(int(seed) + step * noise.GAMMA) for step in range(len(published))] == published


@pytest.mark.parametrize("vector", VECTORS["noise"])
def test_seed_position_and_token_give_the_committed_bits(vector: dict[str, Any]) -> None:
    found = noise.bits(vector["seed"], vector["position"], np.array([vector["token"]], dtype=np.uint64))
    assert hex(int(found[0])) == vector["bits"]


@pytest.mark.parametrize("vector", VECTORS["noise"])
def test_seed_position_and_token_give_the_committed_noise(vector: dict[str, Any]) -> None:
    found = noise.gumbel(vector["seed"], vector["position"], vector["token"] + 1)
    assert found[-1] == pytest.approx(vector["gumbel"], rel=1e-14)


def test_a_larger_vocabulary_leaves_the_noise_of_its_first_tokens_alone() -> None:
    np.testing.assert_array_equal(noise.gumbel(3, 5, 100), noise.gumbel(3, 5, 1000)[:100])


def test_the_uniform_number_lies_strictly_inside_zero_and_one_for_all_bits() -> None:
    ends = np.array([0, noise.MASK, noise.MASK - (1 << 11), 1 << 63, (1 << 63) - 1], dtype=np.uint64)
    uniform = noise._uniform(ends)
    assert np.all((uniform > 0) & (uniform < 1))
    assert np.all(np.isfinite(-np.log(-np.log(uniform))))


def test_noise_has_gumbels_mean_and_variance() -> None:
    found = noise.gumbel(1, 0, SAMPLES)
    assert found.mean() == pytest.approx(EULER, abs=0.01)
    assert found.var() == pytest.approx(np.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize("along", ["tokens", "positions", "seeds"])
def test_noise_follows_gumbels_law_along_tokens_positions_and_seeds(along: str) -> None:
    count = 20_000
    found = {
        "tokens": lambda: noise.gumbel(7, 3, count),
        "positions": lambda: np.array([noise.gumbel(7, place, 1)[0] for place in range(count)]),
        "seeds": lambda: np.array([noise.gumbel(place, 3, 1)[0] for place in range(count)]),
    }[along]()
    reached = (np.arange(count) + 0.5) / count
    gap = np.abs(np.exp(-np.exp(-np.sort(found))) - reached).max()
    assert gap < 1.63 / np.sqrt(count), "Kolmogorov-Smirnov at 1 %"


@pytest.mark.parametrize(("seed", "position"), [(0, 1), (1, 0), (0, 1 << 32), (1 << 32, 0), (1, 1)])
def test_positions_and_seeds_do_not_know_of_each_other(seed: int, position: int) -> None:
    one, other = noise.gumbel(0, 0, SAMPLES), noise.gumbel(seed, position, SAMPLES)
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(SAMPLES)
    assert abs(np.corrcoef(one[1:], other[:-1])[0, 1]) < 4 / np.sqrt(SAMPLES)


def test_no_bits_come_twice_among_neighbouring_positions_and_seeds() -> None:
    tokens = np.arange(1000, dtype=np.uint64)
    rows = [noise.bits(seed, position, tokens) for seed in range(8) for position in range(8)]
    assert len(np.unique(np.concatenate(rows))) == 64_000
