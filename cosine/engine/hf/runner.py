"""Runs steps through a model of transformers as it is; knows nothing of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cosine.engine.hf.attention import IMPLEMENTATION, SlotCache, install, way_for
from cosine.engine.hf.slots import Plane
from cosine.engine.hf.step import Step


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a model caches: two planes per layer, and each layer's sliding window (None sees everything)."""

    planes: tuple[Plane, ...]
    windows: tuple[int | None, ...]


class Runner(Protocol):
    """A model as the engine sees it: rows of a step in, logits of the asked rows out."""

    planes: tuple[Plane, ...]
    kv_dtype: torch.dtype
    mask_dtype: torch.dtype
    device: torch.device

    def logits(self, step: Step, rows: Tensor | None) -> Tensor:
        """Logits `[rows, vocab]` of the given rows of the packed line, of all where None. Fills the slots."""
        ...

    def embed(self, token_ids: Tensor) -> Tensor:
        """Input embeddings `[tokens, hidden]`, in any float type."""
        ...


class StockRunner:
    """Any decoder-only model. `own` replaces its attention function; otherwise it attends by itself under our mask."""

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, own: bool) -> None:
        self._model = model
        self._own = own
        self._cache = SlotCache(anatomy.windows, way_for(model.device, anatomy.planes), joins=not own)
        self.planes = anatomy.planes
        self.device = model.device
        self._layer_types: Sequence[str] | None = getattr(model.config.get_text_config(), "layer_types", None)
        on_cpu = model.device.type == "cpu"
        self.mask_dtype = torch.float32 if own and on_cpu else model.dtype
        self.kv_dtype = model.dtype
        if own:
            install(model, self._cache)
            model.set_attn_implementation(IMPLEMENTATION)

    def logits(self, step: Step, rows: Tensor | None) -> Tensor:
        self._cache.step = step
        try:
            output = self._model(
                input_ids=step.line[0:1],
                position_ids=step.line[1:2],
                past_key_values=self._cache,
                attention_mask=None if self._own else self._stock_mask(step),
                use_cache=True,
                logits_to_keep=0 if rows is None else rows,
            )
        finally:
            self._cache.step = None
        result: Tensor = output.logits[0]
        return result

    def embed(self, token_ids: Tensor) -> Tensor:
        embeddings: Tensor = self._model.get_input_embeddings()(token_ids)
        return embeddings

    def _stock_mask(self, step: Step) -> Any:
        """One additive mask `[1, 1, rows, length]`, or one per layer type where the model has several."""
        windows = self._cache.windows
        if self._layer_types is None or len(set(self._layer_types)) == 1:
            return _four_axes(step, windows[0])
        return {kind: _four_axes(step, windows[self._layer_types.index(kind)]) for kind in set(self._layer_types)}


def _four_axes(step: Step, window: int | None) -> Tensor:
    mask = step.masks.joint(window)
    if mask is None:
        return torch.zeros((1, 1, 1, step.length_sum), dtype=step.mask_dtype, device=step.device)
    return mask[None, None]
