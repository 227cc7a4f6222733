"""From logits to picks, in numpy: the reference that every engine's faster path must equal.

Order of the rules: repetition, presence and frequency penalties, bias, temperature, top-k, top-p, min-p,
shared noise, largest score, lowest id at ties. The pick is a function of (logits, rules, position, tokens
so far) alone, which is what makes the mesh's text independent of drafts (design: sample and match).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosine.core.noise import gumbel
from cosine.core.sampling import Sampling

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowRule:
    """How to pick from one row of logits: the request's rules and the absolute position of the picked token."""

    sampling: Sampling
    position: int


def penalize(logits: NDArray[np.float32], sampling: Sampling, prompt: Sequence[int], output: Sequence[int]) -> Floats:
    """Logits after the penalties, `[vocab]`. Repetition counts prompt and output, the others the output alone."""
    result = logits.astype(np.float64)
    seen = np.unique(np.asarray([*prompt, *output], dtype=np.int64))
    if sampling.repetition_penalty != 1.0 and seen.size:
        old = result[seen]
        result[seen] = np.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
    if output:
        tokens, counts = np.unique(np.asarray(output, dtype=np.int64), return_counts=True)
        result[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return result


def scores(logits: NDArray[np.float32] | Floats, rule: RowRule) -> Floats:
    """What the pick is the argmax of, `[vocab]`: biased logits where greedy, else filtered and with noise."""
    sampling = rule.sampling
    result = logits.astype(np.float64)
    for token, bias in sampling.logit_bias:
        result[token] += bias
    if sampling.temperature == 0.0:
        return result
    result /= sampling.temperature
    if sampling.filtered:
        result = keep_likely(result, sampling)
    return result + gumbel(sampling.seed, rule.position, result.shape[0])


def keep_likely(scaled: Floats, sampling: Sampling) -> Floats:
    """Scaled logits with minus infinity where top-k, top-p or min-p removes the token, `[vocab]`."""
    if 0 < sampling.top_k < scaled.shape[0]:
        scaled = np.where(scaled < np.partition(scaled, -sampling.top_k)[-sampling.top_k], -np.inf, scaled)
    if sampling.top_p < 1.0:
        order = np.argsort(-scaled, kind="stable")
        probabilities = softmax(scaled)[order]
        before = np.cumsum(probabilities) - probabilities
        scaled = scaled.copy()
        scaled[order[before >= sampling.top_p]] = -np.inf
    if sampling.min_p > 0.0:
        probabilities = softmax(scaled)
        scaled = np.where(probabilities < sampling.min_p * probabilities.max(), -np.inf, scaled)
    return scaled


def pick(logits: NDArray[np.float32] | Floats, rule: RowRule) -> int:
    """The target's token for one row."""
    return int(np.argmax(scores(logits, rule)))


def pick_rows(logits: NDArray[np.float32], rules: Sequence[RowRule]) -> list[int]:
    """The target's token for every row of `[rows, vocab]`; greedy rows without bias in one call."""
    result = np.argmax(logits, axis=1).tolist()
    for row, rule in enumerate(rules):
        if rule.sampling.temperature > 0 or rule.sampling.logit_bias:
            result[row] = pick(logits[row], rule)
    return [int(token) for token in result]


def top_children(logits: NDArray[np.float32], rule: RowRule, width: int) -> tuple[list[int], list[float]]:
    """The `width` best tokens of one row, best first, and the softmax of the same scores as confidence in each."""
    score = scores(logits, rule)
    width = min(width, score.shape[0])
    best = np.argpartition(-score, width - 1)[:width] if width < score.shape[0] else np.arange(width)
    best = best[np.lexsort((best, -score[best]))]
    weights = np.exp(score - score[best[0]])
    confidences = weights[best] / weights.sum()
    alive = confidences > 0.0
    return [int(token) for token in best[alive]], [float(value) for value in confidences[alive]]


def log_softmax(logits: NDArray[np.float32] | Floats) -> Floats:
    """Natural log-probabilities, `[vocab]`."""
    shifted = logits.astype(np.float64) - float(np.max(logits))
    result: Floats = shifted - np.log(np.exp(shifted).sum())
    return result


def softmax(logits: NDArray[np.float32] | Floats) -> Floats:
    """Probabilities, `[vocab]`."""
    result: Floats = np.exp(log_softmax(logits))
    return result
