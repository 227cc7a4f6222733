"""Attention on a CPU, each session on its own keys and values, in float32 whatever the slots hold.

A kernel that reads a slot straight from memory waits for it most of the time. So a layer's rows are first copied in one
go into a small buffer that stays in the processor's cache (and become float32 on the way), and the kernel reads that.
Where all that a pass reads is small, it is in the cache already, and the kernel reads the slots themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cosine.engine.hf.slots import Plane
from cosine.engine.hf.span import Span
from cosine.engine.hf.step import Step

CACHED_BYTES_MAX = 4 << 20  # measured: up to here a copy costs more than it saves
FLOAT_BYTES = 4


class Apart:
    """The attention of a model whose cache has these planes. The buffer is kept from step to step."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self._planes = planes
        self._row_bytes = sum(FLOAT_BYTES * plane.heads * plane.width for plane in planes)
        self._buffer = torch.empty(0)

    def __call__(self, step: Step, layer: int, query: Tensor, scaling: float | None, window: int | None) -> Tensor:
        """`query` `[rows, heads, width]`, result alike, in float32."""
        key_heads = self._planes[2 * layer].heads
        repeats = query.shape[1] // key_heads
        queries = query.float().transpose(0, 1)[None].split_with_sizes(step.row_counts, 2)
        parts = []
        masks = step.masks.apart(window, repeats)
        for span, rows, mask in zip(step.spans, queries, masks, strict=True):
            keys, values = self._read(step, span, layer)
            if repeats > 1:  # queries that share a key head lie one after the other: keys are never repeated
                rows = rows.reshape(1, key_heads, repeats * span.row_count, -1)
            result = scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scaling)
            parts.append(result if repeats == 1 else result.reshape(1, query.shape[1], span.row_count, -1))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 2))[0].transpose(0, 1)

    def _read(self, step: Step, span: Span, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, `[1, heads, length, width]` each."""
        stored = span.stored[2 * layer : 2 * layer + 2]
        if stored[0].dtype == torch.float32 and step.length_sum * self._row_bytes <= CACHED_BYTES_MAX:
            keys, values = stored
        else:
            keys, values = buffers = self._buffers(span, layer)
            torch._foreach_copy_(buffers, stored)
        return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]

    def _buffers(self, span: Span, layer: int) -> list[Tensor]:
        planes = self._planes[2 * layer : 2 * layer + 2]
        sizes = [span.length * plane.heads * plane.width for plane in planes]
        if sum(sizes) > self._buffer.numel():
            self._buffer = torch.empty(2 * sum(sizes))
        parts = self._buffer[: sum(sizes)].split_with_sizes(sizes)
        return [part.view(span.length, plane.heads, plane.width) for part, plane in zip(parts, planes, strict=True)]
