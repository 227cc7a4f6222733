"""One forward pass as arrays: which rows run, where they stand, what they see and where they are cached.

All rows of all sessions lie in one packed line `[1, rows]`, so that linear layers waste nothing on padding. A span is
one session's part of that line: tokens in a row, then the nodes of a tree below the last of them. Knows trees and
slots, not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosine.core.tree import EMPTY, TokenTree, ancestor_mask, depths
from cosine.engine.hf.slots import Slot

ALIGNMENT = 8


@dataclass(slots=True)
class Span:
    """New rows of one session behind the `base` rows that its slot holds."""

    slot: Slot
    token_ids: Sequence[int]
    tree: TokenTree = EMPTY
    base: int = field(init=False)
    start: int = field(init=False, default=0)
    stored: list[Tensor] = field(init=False, default_factory=list)
    fresh: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.base = len(self.slot.tokens)

    @property
    def row_count(self) -> int:
        return len(self.token_ids) + len(self.tree)

    @property
    def end(self) -> int:
        return self.start + self.row_count

    @property
    def length(self) -> int:
        """Rows of the slot that the span's rows may see, their own included."""
        return self.base + self.row_count

    def bind(self, start: int) -> None:
        """Fixes the span's place in the packed line and its views of the slot: all rows, and the new ones."""
        self.start = start
        self.slot.reserve(self.length)
        self.stored = self.slot.rows(0, self.length)
        self.fresh = self.slot.rows(self.base, self.length)

    def positions(self) -> list[int]:
        """Absolute position of every row; nodes stand at the root's position plus their depth."""
        root = self.base + len(self.token_ids) - 1
        return [*range(self.base, root + 1), *(root + depth for depth in depths(self.tree))]

    def plain(self, window: int | None) -> bool:
        """True where every row sees all of the slot's rows, so that no mask is needed."""
        return self.row_count == 1 and (window is None or self.length <= window)

    def visible(self, window: int | None) -> NDArray[np.bool_]:
        """`[rows, length]`: true where a row sees a cached row. A window counts the row itself."""
        count, chain = self.row_count, len(self.token_ids)
        seen = np.ones((count, self.length), dtype=np.bool_)
        inner = seen[:, self.base :]
        inner[:chain] = np.tri(chain, count, dtype=np.bool_)
        if len(self.tree):
            inner[chain:, chain:] = ancestor_mask(self.tree)[1:, 1:]
        if window is not None and self.length > window:
            positions = np.asarray(self.positions())
            stored = np.concatenate([np.arange(self.base), positions])
            seen &= positions[:, None] - stored[None, :] < window
        return seen


class Step:
    """A forward pass over spans of different sessions, its tensors on the device; masks are made once each.

    `line` `[2, rows]` holds token ids and positions.
    """

    def __init__(self, spans: Sequence[Span], device: torch.device, dtype: torch.dtype) -> None:
        self.spans = spans
        self.device = device
        self.mask_dtype = dtype
        self._masks: dict[tuple[int, int | None, int], Tensor | None] = {}
        start = 0
        for span in spans:
            span.bind(start)
            start = span.end
        self.row_count = start
        ids: list[int] = []
        positions: list[int] = []
        for span in spans:
            ids += [*span.token_ids, *span.tree.token_ids]
            positions += span.positions()
        self.line = torch.tensor([ids, positions], device=device)

    def asked_rows(self) -> Tensor | None:
        """Rows of the packed line that logits are wanted for (roots and nodes), or None where all are."""
        if all(len(span.token_ids) == 1 for span in self.spans):
            return None
        rows: list[int] = []
        for span in self.spans:
            rows += range(span.start + len(span.token_ids) - 1, span.end)
        return torch.tensor(rows, device=self.device)

    def last_row(self) -> Tensor:
        """The last row of the packed line, for passes whose logits nobody wants."""
        return torch.tensor([self.row_count - 1], device=self.device)

    def mask(self, index: int, window: int | None, repeats: int = 1) -> Tensor | None:
        """Additive mask `[repeats * rows, length]` of one span, or None where its rows see everything."""
        key = (index, window, repeats)
        if key not in self._masks:
            span = self.spans[index]
            self._masks[key] = None if span.plain(window) else self._additive(span.visible(window), repeats)
        return self._masks[key]

    def joint_mask(self, window: int | None, repeats: int = 1) -> Tensor | None:
        """Additive mask `[repeats * rows, sum of lengths]` of the whole line, blocks of sessions on the diagonal."""
        if len(self.spans) == 1:
            return self.mask(0, window, repeats)
        key = (-1, window, repeats)
        if key not in self._masks:
            seen = np.zeros((self.row_count, sum(span.length for span in self.spans)), dtype=np.bool_)
            column = 0
            for span in self.spans:
                seen[span.start : span.end, column : column + span.length] = span.visible(window)
                column += span.length
            self._masks[key] = self._additive(seen, repeats)
        return self._masks[key]

    def _additive(self, seen: NDArray[np.bool_], repeats: int) -> Tensor:
        """0 where seen, the lowest number elsewhere; rows aligned in memory as fused kernels want them."""
        rows, columns = seen.shape
        padded = np.full(
            (rows, -(-columns // ALIGNMENT) * ALIGNMENT), torch.finfo(self.mask_dtype).min, dtype=np.float32
        )
        padded[:, :columns][seen] = 0.0
        mask = torch.from_numpy(padded).to(device=self.device, dtype=self.mask_dtype)
        return (mask.repeat(repeats, 1) if repeats > 1 else mask)[:, :columns]
