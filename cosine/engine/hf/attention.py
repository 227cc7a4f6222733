"""Attention of packed rows over slots: a cache that writes into slots, an attention function that reads them.

Two ways to attend. `apart.Apart` reads each session's slot for itself (CPU). `joined` runs one kernel over all rows and
the concatenated slots under a block mask (CUDA, where launches cost more than copies). Models that do not let their
attention function be replaced get the concatenation and the mask, and use their own.
Knows steps and slots; the model reaches it only through transformers' public hooks (`AttentionInterface`,
`Cache.update`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from cosine.engine.hf.apart import Apart
from cosine.engine.hf.slots import Plane
from cosine.engine.hf.step import Step

IMPLEMENTATION = "cosine_slots"
Way = Callable[[Step, int, Tensor, float | None, int | None], Tensor]

UNSUPPORTED_EXTRAS = ("softcap", "s_aux", "position_bias")


class SlotCache(Cache):
    """What the model takes for its cache during one step. `windows` holds each layer's sliding window or None, `way` is
    how to attend.

    `joins` makes `update` return the rows of all sessions one after the other, as stock attention expects.
    """

    def __init__(self, windows: Sequence[int | None], way: Way, joins: bool) -> None:
        super().__init__(layers=[])
        self.windows = tuple(windows)
        self.way = way
        self.joins = joins
        self.step: Step | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes the new rows `[1, heads, rows, width]` of one layer into their slots."""
        assert self.step is not None, "the cache is only filled during a step"
        self.step.before_layer()
        self.step.store(layer_idx, key_states[0].transpose(0, 1), value_states[0].transpose(0, 1))
        if not self.joins:
            return key_states, value_states
        keys, values = self.step.joined(layer_idx)
        return keys.transpose(0, 1)[None], values.transpose(0, 1)[None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows of all sessions before the step; models ask for it, positions are always given."""
        return sum(span.base for span in self.step.spans) if self.step else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


def way_for(device: torch.device, planes: Sequence[Plane]) -> Way:
    """How a model on that device, whose cache has these planes, attends."""
    return Apart(planes) if device.type == "cpu" else joined


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
    rows = query[0].transpose(0, 1)
    return cache.way(cache.step, layer, rows, scaling, cache.windows[layer])[None].to(query.dtype), None


def joined(step: Step, layer: int, query: Tensor, scaling: float | None, window: int | None) -> Tensor:
    """One kernel for all sessions. `query` `[rows, heads, width]`, result alike, in the slots' precision."""
    keys, values = step.joined(layer)
    rows, heads, width = query.shape
    repeats = heads // keys.shape[1]
    folded = query.to(keys.dtype).transpose(0, 1).reshape(1, heads // repeats, repeats * rows, width)
    result = scaled_dot_product_attention(
        folded,
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        attn_mask=step.masks.joint(window, repeats),
        scale=scaling,
    )
    return result.reshape(heads, rows, -1).transpose(0, 1)
