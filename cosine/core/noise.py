"""Shared noise: one Gumbel value per (seed, position, token id), the same on every machine, with no state.

SplitMix64's finalizer (Steele, Lea, Flood 2014) mixes the three numbers into 64 bits; the upper 53 make a
uniform number strictly inside (0, 1), and `-log(-log(u))` a standard Gumbel value. Drafters and target
add the same values to their own scores, so they tend to pick the same token (Gumbel coupling,
arXiv 2408.07978). The bits are exact everywhere; the logarithms agree to the last place or so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
POSITION_STEP = 0xD1342543DE82EF95
UNIFORM_SCALE = 2.0**-53
UNIFORM_MAX = 1.0 - 2.0**-53  # the largest double below 1, to which the topmost bits would otherwise round up


def mix(value: int) -> int:
    """SplitMix64's finalizer on one number, modulo 2^64."""
    value = (value + GAMMA) & MASK
    value = ((value ^ (value >> 30)) * MIX_1) & MASK
    value = ((value ^ (value >> 27)) * MIX_2) & MASK
    return value ^ (value >> 31)


def row_key(seed: int, position: int) -> int:
    """The 64-bit key of one position of one request; token ids are mixed into it."""
    return mix(mix(seed & MASK) ^ ((position * POSITION_STEP) & MASK))


def bits(seed: int, position: int, token_ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 mixed bits per token id, shape of `token_ids`."""
    value = token_ids * np.uint64(GAMMA) + np.uint64(row_key(seed, position))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(MIX_1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(MIX_2)
    return value ^ (value >> np.uint64(31))


def gumbel(seed: int, position: int, vocab_size: int) -> NDArray[np.float64]:
    """Gumbel noise of every token at one absolute position, `[vocab_size]`, between about -3.6 and 36.8."""
    uniform = _uniform(bits(seed, position, np.arange(vocab_size, dtype=np.uint64)))
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise


def _uniform(value: NDArray[np.uint64]) -> NDArray[np.float64]:
    upper = (value >> np.uint64(11)).astype(np.float64)
    return np.minimum((upper + 0.5) * UNIFORM_SCALE, UNIFORM_MAX)
