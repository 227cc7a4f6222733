"""Picks on an accelerator: `core.noise` and `core.picking` in torch, all rows at once, one copy to the host.

The 64-bit mix is exact (signed arithmetic that wraps, shifts made logical by masks); the logarithms are the device's
own, so noise agrees with the host's to the last place or so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosine.core.noise import GAMMA, MASK, MIX_1, MIX_2, UNIFORM_MAX, UNIFORM_SCALE, row_key
from cosine.core.picking import RowRule
from cosine.core.sampling import Sampling
from cosine.engine.hf.picking import finite

MINUS_INFINITY = float("-inf")


class DeviceLogits:
    """Rows `[rows, vocab]` that stay on the device."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = finite(rows)

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        with torch.inference_mode():
            return [int(token) for token in largest(scores(self._rows, rules)).tolist()]

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        with torch.inference_mode():
            score = scores(self._rows[list(rows)], rules)
            return _best(score, min(width, score.shape[1]))

    def row(self, index: int) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._rows[index].float().cpu().numpy()
        return result


def gumbel(keys: Tensor, vocab_size: int) -> Tensor:
    """Noise `[keys, vocab_size]` of int64 row keys `[keys]` (see `core.noise.row_key`), float64."""
    value = torch.arange(vocab_size, device=keys.device) * _signed(GAMMA) + keys[:, None]
    value = (value ^ _shifted(value, 30)) * _signed(MIX_1)
    value = (value ^ _shifted(value, 27)) * _signed(MIX_2)
    value = value ^ _shifted(value, 31)
    uniform = ((_shifted(value, 11).double() + 0.5) * UNIFORM_SCALE).clamp_max(UNIFORM_MAX)
    return -torch.log(-torch.log(uniform))


def scores(logits: Tensor, rules: Sequence[RowRule]) -> Tensor:
    """`core.picking.scores` of all rows, float64 `[rows, vocab]`."""
    result = logits.double()
    for row, rule in enumerate(rules):
        if rule.sampling.logit_bias:
            tokens, biases = zip(*rule.sampling.logit_bias, strict=True)
            result[row].index_add_(0, _tensor(tokens, result), _tensor(biases, result).double())
    noisy = [row for row, rule in enumerate(rules) if rule.sampling.temperature > 0]
    if not noisy:
        return result
    temperatures = _tensor([rules[row].sampling.temperature for row in noisy], result)
    scaled = result[noisy] / temperatures[:, None]
    for place, row in enumerate(noisy):
        if rules[row].sampling.filtered:
            scaled[place] = keep_likely(scaled[place], rules[row].sampling)
    result[noisy] = scaled + _noise([rules[row] for row in noisy], result)
    return result


def keep_likely(scaled: Tensor, sampling: Sampling) -> Tensor:
    """`core.picking.keep_likely` of one row."""
    if 0 < sampling.top_k < scaled.shape[0]:
        scaled = scaled.masked_fill(scaled < scaled.topk(sampling.top_k).values[-1], MINUS_INFINITY)
    if sampling.top_p < 1.0:
        order = torch.sort(-scaled, stable=True).indices
        probabilities = scaled.softmax(0)[order]
        before = probabilities.cumsum(0) - probabilities
        scaled = scaled.index_fill(0, order[before >= sampling.top_p], MINUS_INFINITY)
    if sampling.min_p > 0.0:
        probabilities = scaled.softmax(0)
        scaled = scaled.masked_fill(probabilities < sampling.min_p * probabilities.max(), MINUS_INFINITY)
    return scaled


def largest(score: Tensor) -> Tensor:
    """Index of each row's largest entry, the lowest at ties, `[rows]`; torch's own argmax does not promise that."""
    is_best = score == score.amax(1, keepdim=True)
    return is_best.to(torch.uint8).cumsum(1, dtype=torch.int32).eq(0).sum(1)


def _best(score: Tensor, width: int) -> list[tuple[list[int], list[float]]]:
    weight_sum = (score - score.amax(1, keepdim=True)).exp().sum(1)
    token_ids, tops = [], []
    for _ in range(width):
        best = largest(score)[:, None]
        token_ids.append(best)
        tops.append(score.gather(1, best))
        score.scatter_(1, best, MINUS_INFINITY)
    top = torch.cat(tops, 1)
    confidences = (top - top[:, :1]).exp() / weight_sum[:, None]
    together = torch.cat([torch.cat(token_ids, 1).double(), confidences], 1).tolist()
    return [_alive(row[:width], row[width:]) for row in together]


def _alive(token_ids: Sequence[float], confidences: Sequence[float]) -> tuple[list[int], list[float]]:
    count = sum(confidence > 0.0 for confidence in confidences)
    return [int(token) for token in token_ids[:count]], list(confidences[:count])


def _noise(rules: Sequence[RowRule], like: Tensor) -> Tensor:
    """Noise `[rules, vocab]`, made once per (seed, position)."""
    places: dict[tuple[int, int], int] = {}
    rows = [places.setdefault((rule.sampling.seed, rule.position), len(places)) for rule in rules]
    keys = _tensor([_signed(row_key(seed, position)) for seed, position in places], like)
    noise = gumbel(keys, like.shape[1])
    return noise if rows == list(range(len(places))) else noise[_tensor(rows, like)]


def _tensor(values: Sequence[float], like: Tensor) -> Tensor:
    kind = torch.float64 if isinstance(values[0], float) else torch.int64
    return torch.tensor(values, dtype=kind, device=like.device)


def _shifted(value: Tensor, count: int) -> Tensor:
    """Logical shift to the right."""
    return (value >> count) & (MASK >> count)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    return value - (1 << 64) if value >> 63 else value
