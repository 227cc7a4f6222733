"""What the rows of a pass see, as additive masks: 0 where seen, the lowest number elsewhere. Each is made once a pass.

Knows spans, not models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosine.engine.hf.span import Span

ALIGNMENT = 8


class Masks:
    """The masks of a pass over spans. `window` is a layer's sliding window or None; `repeats` how often the rows of a
    mask are repeated, for queries that share a key head."""

    def __init__(self, spans: Sequence[Span], device: torch.device, dtype: torch.dtype) -> None:
        self._spans = spans
        self._device = device
        self._dtype = dtype
        self._lowest = torch.finfo(dtype).min
        self._apart: dict[tuple[int | None, int], list[Tensor | None]] = {}
        self._joint: dict[tuple[int | None, int], Tensor | None] = {}

    def apart(self, window: int | None, repeats: int) -> list[Tensor | None]:
        """Per span `[repeats * rows, length]`, or None where its rows see its whole slot."""
        key = (window, repeats)
        if key not in self._apart:
            self._apart[key] = self._make_apart(window, repeats)
        return self._apart[key]

    def joint(self, window: int | None, repeats: int = 1) -> Tensor | None:
        """`[repeats * rows, sum of lengths]` of all rows, with what the spans see on the diagonal; None where the one
        row of the only span sees its whole slot."""
        key = (window, repeats)
        if key not in self._joint:
            alone = len(self._spans) == 1 and self._spans[0].plain(window)
            self._joint[key] = None if alone else self._make_joint(window, repeats)
        return self._joint[key]

    def _make_apart(self, window: int | None, repeats: int) -> list[Tensor | None]:
        masked = [span for span in self._spans if not span.plain(window)]
        if not masked:
            return [None] * len(self._spans)
        row_counts = [repeats * span.row_count for span in masked]
        canvas = np.zeros((sum(row_counts), _aligned(max(span.length for span in masked))), dtype=np.float32)
        row = 0
        for span, row_count in zip(masked, row_counts, strict=True):
            self._hide(canvas[row : row + row_count, : span.length].reshape(repeats, span.row_count, -1), span, window)
            row += row_count
        parts = iter(self._tensor(canvas).split_with_sizes(row_counts))
        return [None if span.plain(window) else next(parts)[:, : span.length] for span in self._spans]

    def _make_joint(self, window: int | None, repeats: int) -> Tensor:
        rows, columns = sum(span.row_count for span in self._spans), sum(span.length for span in self._spans)
        canvas = np.full((repeats, rows, _aligned(columns)), self._lowest, dtype=np.float32)
        column = 0
        for span in self._spans:
            block = canvas[:, span.start : span.end, column : column + span.length]
            block[:] = 0.0
            self._hide(block, span, window)
            column += span.length
        return self._tensor(canvas.reshape(repeats * rows, -1))[:, :columns]

    def _hide(self, block: NDArray[np.float32], span: Span, window: int | None) -> None:
        """Writes what a span's rows do not see into their zeros, `[repeats, rows, length]`."""
        if window is not None and span.length > window:
            block[:, ~span.visible(window)] = self._lowest
        elif span.row_count > 1:
            block[:, :, span.base :][:, ~span.related()] = self._lowest

    def _tensor(self, canvas: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(canvas).to(device=self._device, dtype=self._dtype)


def _aligned(columns: int) -> int:
    """As many columns, rounded up, as fused kernels want a row to be long in memory."""
    return -(-columns // ALIGNMENT) * ALIGNMENT
