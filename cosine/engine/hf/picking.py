"""Picks on the host: `core.picking` with the same results and less work.

Noise is kept per (seed, position), since the nodes of one depth share it and the next round asks for the same
positions again; the few best of a row are found without sorting it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosine.core.noise import gumbel
from cosine.core.picking import Floats, RowRule, keep_likely
from cosine.core.sampling import Sampling

NOISE_BYTES_MAX = 32 << 20
SCAN_WIDTH_MAX = 16
ROWS_MANY = 4
BLOCK_ELEMENTS = 1 << 16  # scores worked on at once; so many stay in a processor's cache


class NoiseCache:
    """Gumbel noise `[vocab]` of the positions asked for last."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._entries_max = max(8, NOISE_BYTES_MAX // (8 * vocab_size))
        self._rows: OrderedDict[tuple[int, int], Floats] = OrderedDict()

    def row(self, seed: int, position: int) -> Floats:
        """Equal to `core.noise.gumbel`; the caller must not write into it."""
        key = (seed, position)
        noise = self._rows.get(key)
        if noise is None:
            if len(self._rows) >= self._entries_max:
                self._rows.popitem(last=False)
            noise = self._rows[key] = gumbel(seed, position, self._vocab_size)
        else:
            self._rows.move_to_end(key)
        return noise


class HostLogits:
    """Rows `[rows, vocab]` in the host's memory."""

    def __init__(self, rows: NDArray[np.float32], noise: NoiseCache) -> None:
        self._rows = rows
        self._noise = noise

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        assert len(rules) == len(self._rows), "one rule per row"
        if all(_greedy(rule.sampling) for rule in rules):
            best: list[int] = self._rows.argmax(axis=1).tolist()
            return best
        return [int(self._scores(row, rule).argmax()) for row, rule in enumerate(rules)]

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        if len(rows) < ROWS_MANY:
            return [_best(self._scores(row, rule), width) for row, rule in zip(rows, rules, strict=True)]
        found: list[tuple[list[int], list[float]]] = []
        size = max(1, BLOCK_ELEMENTS // self._rows.shape[1])
        for start in range(0, len(rows), size):
            pairs = zip(rows[start : start + size], rules[start : start + size], strict=True)
            found += _best_of_many(np.stack([self._scores(row, rule) for row, rule in pairs]), width)
        return found

    def row(self, index: int) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._rows[index]
        return row

    def _scores(self, index: int, rule: RowRule) -> Floats:
        """`core.picking.scores` of one row; a fresh array."""
        sampling = rule.sampling
        result: Floats = self._rows[index].astype(np.float64)
        for token, bias in sampling.logit_bias:
            result[token] += bias
        if sampling.temperature == 0.0:
            return result
        result /= sampling.temperature
        if sampling.filtered:
            result = keep_likely(result, sampling)
        result += self._noise.row(sampling.seed, rule.position)
        return result


def on_host(logits: Tensor, noise: NoiseCache) -> HostLogits:
    """Logits `[rows, vocab]` of any type as float32 on the host."""
    rows: NDArray[np.float32] = finite(logits).float().cpu().numpy()
    return HostLogits(rows, noise)


def finite(logits: Tensor) -> Tensor:
    """Logits as any rule can work on them, where activations have overflowed: what is no number is the least of its
    type, and so nothing is picked that the vocabulary does not have. A row without numbers is a row of equals."""
    return logits.nan_to_num(nan=torch.finfo(logits.dtype).min)


def _greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0.0 and not sampling.logit_bias


def _best(score: Floats, width: int) -> tuple[list[int], list[float]]:
    """As `core.picking.top_children`: best first, lowest id at ties, with the softmax of the scores. Spoils `score`."""
    width = min(width, score.shape[0])
    if width > SCAN_WIDTH_MAX:
        token_ids = np.argsort(-score, kind="stable")[:width].tolist()
        tops = [float(score[token]) for token in token_ids]
        weight_sum = float(np.exp(score - tops[0]).sum())
    else:
        token_ids, tops, weight_sum = _scan(score, width)
    confidences = [float(np.exp(top - tops[0])) / weight_sum for top in tops]
    alive = sum(confidence > 0.0 for confidence in confidences)
    return token_ids[:alive], confidences[:alive]


def _scan(score: Floats, width: int) -> tuple[list[int], list[float], float]:
    """The `width` best by looking for the largest that often; their scores; the sum of exp(score - best)."""
    best = int(score.argmax())
    weight_sum = float(np.exp(score - score[best]).sum())
    token_ids: list[int] = []
    tops: list[float] = []
    for _ in range(width):
        token_ids.append(best)
        tops.append(float(score[best]))
        score[best] = -np.inf
        best = int(score.argmax())
    return token_ids, tops, weight_sum


def _best_of_many(score: Floats, width: int) -> list[tuple[list[int], list[float]]]:
    """`_best` of each row of `score` `[rows, vocab]`, with fewer calls."""
    width = min(width, score.shape[1])
    if width > SCAN_WIDTH_MAX:
        return [_best(row, width) for row in score]
    rows = np.arange(len(score))
    weight_sums = np.empty(0)
    columns: list[NDArray[np.int64]] = []
    tops: list[Floats] = []
    for _ in range(width):
        best = score.argmax(axis=1)
        columns.append(best)
        tops.append(score[rows, best])
        if not weight_sums.size:
            weight_sums = np.exp(score - tops[0][:, None]).sum(axis=1)
        score[rows, best] = -np.inf
    confidences = np.exp(np.array(tops) - tops[0]) / weight_sums
    counts = (confidences > 0.0).sum(axis=0).tolist()
    return [
        (token_ids[:alive], row[:alive])
        for token_ids, row, alive in zip(np.array(columns).T.tolist(), confidences.T.tolist(), counts, strict=True)
    ]
