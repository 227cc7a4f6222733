"""Attention of packed rows over slots: a cache that writes into slots, an attention function that reads them.

Two ways to attend. `apart` runs one kernel per session on its slot, without copying a cached row (CPU). `joined` runs
one kernel over all rows and the concatenated slots under a block mask (CUDA, where launches cost more than copies).
Models that do not let their attention function be replaced get the concatenation and the mask, and use their own.
Knows steps and slots; the model reaches it only through transformers' public hooks (`AttentionInterface`,
`Cache.update`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from cosine.engine.hf.step import Span, Step

IMPLEMENTATION = "cosine_slots"
UNSUPPORTED_EXTRAS = ("softcap", "s_aux", "position_bias")


class SlotCache(Cache):
    """What the model takes for its cache during one step. `windows` holds each layer's sliding window or None.

    `joins` makes `update` return the rows of all sessions one after the other, as stock attention expects.
    """

    def __init__(self, windows: Sequence[int | None], joins: bool) -> None:
        super().__init__(layers=[])
        self.windows = tuple(windows)
        self.joins = joins
        self.step: Step | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes the new rows `[1, heads, rows, width]` of one layer into their slots."""
        assert self.step is not None, "the cache is only filled during a step"
        for span in self.step.spans:
            span.fresh[2 * layer_idx].copy_(key_states[0, :, span.start : span.end])
            span.fresh[2 * layer_idx + 1].copy_(value_states[0, :, span.start : span.end])
        if not self.joins:
            return key_states, value_states
        return _joined(self.step.spans, 2 * layer_idx), _joined(self.step.spans, 2 * layer_idx + 1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows of all sessions before the step; models ask for it, positions are always given."""
        return sum(span.base for span in self.step.spans) if self.step else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


def install(model: nn.Module, cache: SlotCache) -> None:
    """Lets every attention layer of the model find the cache that serves it."""
    AttentionInterface.register(IMPLEMENTATION, attend)
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            object.__setattr__(module, "cosine_cache", cache)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` `[1, heads, rows, width]` over the step's slots; result `[1, rows, heads, width]`."""
    for name in UNSUPPORTED_EXTRAS:
        if extras.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    cache = module.cosine_cache
    layer = module.layer_idx
    assert isinstance(cache, SlotCache)
    assert isinstance(layer, int)
    assert cache.step is not None, "attention runs during a step"
    way = apart if query.device.type == "cpu" else joined
    return way(cache.step, layer, query[0], scaling, cache.windows[layer]).transpose(0, 1)[None].to(query.dtype), None


def apart(step: Step, layer: int, query: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """One kernel per session. `query` `[heads, rows, width]`, result alike in the slots' precision."""
    parts = []
    for index, span in enumerate(step.spans):
        keys, values = span.stored[2 * layer], span.stored[2 * layer + 1]
        repeats = query.shape[0] // keys.shape[0]
        rows = query[:, span.start : span.end].to(keys.dtype)
        parts.append(_kernel(rows, keys, values, step.mask(index, window, repeats), scaling, repeats))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def joined(step: Step, layer: int, query: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """One kernel for all sessions. `query` `[heads, rows, width]`, result alike."""
    keys = _joined(step.spans, 2 * layer)[0]
    values = _joined(step.spans, 2 * layer + 1)[0]
    repeats = query.shape[0] // keys.shape[0]
    return _kernel(query.to(keys.dtype), keys, values, step.joint_mask(window, repeats), scaling, repeats)


def _kernel(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float | None, repeats: int
) -> Tensor:
    """Queries that share a key head are laid one after the other on the row axis, so keys are never repeated."""
    heads, rows, width = query.shape
    folded = query.reshape(1, heads // repeats, repeats * rows, width) if repeats > 1 else query[None]
    result = scaled_dot_product_attention(folded, keys[None], values[None], attn_mask=mask, scale=scaling)
    return result.reshape(heads, rows, values.shape[-1])


def _joined(spans: Sequence[Span], plane: int) -> Tensor:
    if len(spans) == 1:
        return spans[0].stored[plane][None]
    return torch.cat([span.stored[plane] for span in spans], dim=1)[None]
