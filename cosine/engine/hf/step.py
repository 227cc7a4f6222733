"""One forward pass as arrays: all rows of all sessions in one packed line, where they are cached, what they see.

The line is `[1, rows]`, so that linear layers waste nothing on padding; a span is one session's part of it: tokens in a
row, then the nodes of a tree below the last of them. Knows spans, not models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cosine.engine.base import Stopped
from cosine.engine.hf.masks import Masks
from cosine.engine.hf.span import Span


class Step:
    """A forward pass over spans of different sessions, its tensors on the device; masks of `mask_dtype`.

    `line` `[2, rows]` holds token ids and positions. `stop` is asked before every layer.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        device: torch.device,
        mask_dtype: torch.dtype,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._stop = stop
        self.spans = spans
        self.device = device
        self.masks = Masks(spans, device, mask_dtype)
        self.mask_dtype = mask_dtype
        ids: list[int] = []
        positions: list[int] = []
        for span in spans:
            span.bind(len(ids))
            ids += [*span.token_ids, *span.tree.token_ids]
            positions += span.positions()
        self.row_count = len(ids)
        self.row_counts = [span.row_count for span in spans]
        self.length_sum = sum(span.length for span in spans)
        self.line = torch.tensor([ids, positions], device=device)

    def before_layer(self) -> None:
        """Raises Stopped where nobody wants the step any more."""
        if self._stop is not None and self._stop():
            raise Stopped

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

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes a layer's new rows, `[rows, heads, width]` each, into the slots; there may be rows of padding."""
        if len(self.spans) == 1:
            self.spans[0].fresh[2 * layer].copy_(keys[: self.row_count])
            self.spans[0].fresh[2 * layer + 1].copy_(values[: self.row_count])
            return
        into = [span.fresh[2 * layer] for span in self.spans] + [span.fresh[2 * layer + 1] for span in self.spans]
        parts = [part for rows in (keys, values) for part in rows[: self.row_count].split_with_sizes(self.row_counts)]
        torch._foreach_copy_(into, parts)

    def joined(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all sessions one after the other, `[sum of lengths, heads, width]` each."""
        first, second = ([span.stored[plane] for span in self.spans] for plane in (2 * layer, 2 * layer + 1))
        return (first[0], second[0]) if len(first) == 1 else (torch.cat(first), torch.cat(second))
