"""One session's part of a forward pass: which rows run, where they stand, what they see and where they are cached.

Knows trees and slots, not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cosine.core.tree import EMPTY, TokenTree, ancestor_mask, depths
from cosine.engine.hf.slots import Slot


@dataclass(slots=True)
class Span:
    """New rows of one session behind the `base` rows that its slot holds. Row `start` of the packed line is its first.

    `length` is how many rows of the slot the span's rows may see, their own included; `stored` holds those of every
    plane, `fresh` the span's own.
    """

    slot: Slot
    token_ids: Sequence[int]
    tree: TokenTree = EMPTY
    base: int = field(init=False)
    row_count: int = field(init=False)
    length: int = field(init=False)
    start: int = field(init=False, default=0)
    stored: list[Tensor] = field(init=False, default_factory=list)
    fresh: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.base = len(self.slot.tokens)
        self.row_count = len(self.token_ids) + len(self.tree)
        self.length = self.base + self.row_count

    @property
    def end(self) -> int:
        return self.start + self.row_count

    def bind(self, start: int) -> None:
        """Fixes the span's place in the packed line and its views of the slot."""
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

    def related(self) -> NDArray[np.bool_]:
        """`[rows, rows]`: true where a row sees another of the span's own."""
        chain = len(self.token_ids)
        if chain == 1:
            return ancestor_mask(self.tree)
        seen = np.tri(self.row_count, dtype=np.bool_)
        if len(self.tree):
            seen[chain:, chain:] = ancestor_mask(self.tree)[1:, 1:]
        return seen

    def visible(self, window: int) -> NDArray[np.bool_]:
        """`[rows, length]`: true where a row sees a cached row. The window counts the row itself."""
        positions = np.asarray(self.positions())
        stored = np.concatenate([np.arange(self.base), positions])
        seen: NDArray[np.bool_] = positions[:, None] - stored[None, :] < window
        seen[:, self.base :] &= self.related()
        return seen
