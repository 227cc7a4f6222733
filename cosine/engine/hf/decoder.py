"""A straight-line decoder for the Llama family (Llama, Mistral, Qwen2, Qwen3): transformers' arithmetic, fewer calls.

Query, key and value are one product, gate and up another; rotary angles are looked up; the residual and, on a CPU, the
arithmetic of attention are float32 whatever the weights are. A model whose parts are not exactly the known ones is not
recognised and runs as transformers wrote it. Whether the result is right is checked against the stock model by whoever
builds one (`assembly`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import pad, silu
from transformers import PreTrainedModel

from cosine.engine.hf.attention import Way, way_for
from cosine.engine.hf.packing import ROWS_LEAST, Linear
from cosine.engine.hf.runner import Anatomy
from cosine.engine.hf.step import Step

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
STATIC_ROPES = ("default", "linear", "llama3", "yarn")
ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def recognised(model: PreTrainedModel) -> bool:
    """True where the model's parts are those that the decoder knows, no more and no less."""
    config = model.config
    if config.model_type not in FAMILIES or config.hidden_act != "silu":
        return False
    if config.rope_parameters.get("rope_type", "default") not in STATIC_ROPES:
        return False
    trunk: Any = model.model
    return all(_known(layer) for layer in trunk.layers)


def _known(layer: nn.Module) -> bool:
    attention, mlp = _parts(layer.self_attn), _parts(layer.mlp)
    return _parts(layer) == LAYER_PARTS and attention - HEAD_NORMS == ATTENTION_PARTS and mlp == MLP_PARTS


def _parts(module: Any) -> set[str]:
    return {name for name, _ in module.named_children()}


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, key/value heads, and the width of one."""

    queries: int
    keys: int
    width: int


class Norm:
    """Root-mean-square norm over the last axis, in float32: `x / sqrt(mean(x^2) + eps) * weight`, with few calls."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        width = weight.shape[-1]
        self._weight = weight.detach().float() * width**0.5
        self._floor = eps * width

    def __call__(self, x: Tensor) -> Tensor:
        length: Tensor = vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().add_(self._floor).rsqrt_()
        return (x * scale).mul_(self._weight)


class DecoderRunner:
    """Runs steps through a recognised model; see `runner.Runner`. Keeps the weights it needs, not the model."""

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, tokens_max: int) -> None:
        config: Any = model.config
        self.planes = anatomy.planes
        self.device = model.device
        self._dtype = model.dtype
        self.mask_dtype = torch.float32 if self.device.type == "cpu" else self._dtype
        self.kv_dtype = model.dtype
        eps = float(config.rms_norm_eps)
        trunk: Any = model.model
        head: Any = model.lm_head
        self._embedding: Tensor = trunk.embed_tokens.weight.detach()
        self._norm = Norm(trunk.norm.weight, eps)
        self._head = Linear([head.weight], [head.bias])
        way = way_for(self.device, self.planes)
        self._layers = [Layer(layer, index, anatomy, eps, way) for index, layer in enumerate(trunk.layers)]
        self._angles = _angles(model, min(tokens_max, int(config.max_position_embeddings)))
        self._rows_least = ROWS_LEAST.get(self._dtype, 1) if self._head.packed else 1

    def logits(self, step: Step, rows: Tensor | None) -> Tensor:
        missing = max(0, self._rows_least - step.row_count)
        line = pad(step.line, (0, missing)) if missing else step.line
        hidden = self._embedding.index_select(0, line[0]).float()
        angles = self._angles.index_select(0, line[1]).unsqueeze(1)
        for layer in self._layers:
            step.before_layer()
            layer.run(hidden, angles, step)
        if rows is not None:
            hidden = hidden.index_select(0, rows)
        asked = step.row_count if rows is None else rows.shape[0]
        hidden = self._norm(hidden).to(self._dtype)
        if hidden.shape[0] < self._rows_least:
            hidden = pad(hidden, (0, 0, 0, self._rows_least - hidden.shape[0]))
        return self._head(hidden)[:asked]

    def embed(self, token_ids: Tensor) -> Tensor:
        return self._embedding.index_select(0, token_ids)


class Layer:
    """One decoder layer; adds to the residual `hidden` `[rows, hidden]` in place."""

    def __init__(self, layer: Any, index: int, anatomy: Anatomy, eps: float, way: Way) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        plane = anatomy.planes[2 * index]
        self._heads = heads = Heads(attention.q_proj.out_features // plane.width, plane.heads, plane.width)
        self._index, self._window, self._way = index, anatomy.windows[index], way
        self._scaling = float(attention.scaling)
        self._before_attention = Norm(layer.input_layernorm.weight, eps)
        self._before_mlp = Norm(layer.post_attention_layernorm.weight, eps)
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        self._qkv = Linear(
            [_paired(query.weight, heads.queries), _paired(key.weight, heads.keys), value.weight],
            [
                None if query.bias is None else _paired(query.bias, heads.queries),
                None if key.bias is None else _paired(key.bias, heads.keys),
                value.bias,
            ],
        )
        self._head_norm = _head_norm(attention, heads, eps)
        self._out = Linear([attention.o_proj.weight], [attention.o_proj.bias])
        self._gate_up = Linear([mlp.gate_proj.weight, mlp.up_proj.weight], [mlp.gate_proj.bias, mlp.up_proj.bias])
        self._down = Linear([mlp.down_proj.weight], [mlp.down_proj.bias])
        self._dtype = mlp.down_proj.weight.dtype

    def run(self, hidden: Tensor, angles: Tensor, step: Step) -> None:
        qkv = self._qkv(self._before_attention(hidden).to(self._dtype))
        hidden.add_(self._out(self._attend(qkv, angles, step)))
        gate, up = self._gate_up(self._before_mlp(hidden).to(self._dtype)).chunk(2, -1)
        hidden.add_(self._down(silu(gate).mul_(up)))

    def _attend(self, qkv: Tensor, angles: Tensor, step: Step) -> Tensor:
        """From `[rows, queries + keys + values]` to `[rows, heads * width]`, writing keys and values into the slots."""
        heads, rows = self._heads, qkv.shape[0]
        turned = heads.queries + heads.keys
        qk = qkv[:, : turned * heads.width].float().view(rows, turned, heads.width)
        if self._head_norm is not None:
            qk = self._head_norm(qk)
        pairs = torch.view_as_complex(qk.view(rows, turned, heads.width // 2, 2))
        qk = torch.view_as_real(pairs * angles).view(rows, turned, heads.width)
        step.store(self._index, qk[:, heads.queries :], qkv[:, turned * heads.width :].view(rows, heads.keys, -1))
        seen = self._way(step, self._index, qk[: step.row_count, : heads.queries], self._scaling, self._window)
        merged = seen.reshape(step.row_count, -1).to(self._dtype)
        return merged if rows == step.row_count else pad(merged, (0, 0, 0, rows - step.row_count))


def _paired(states: Tensor, heads: int) -> Tensor:
    """Rows of a projection reordered so that the two numbers that rotary embedding turns together lie side by side.

    Transformers turns number i of a head with number i + width/2. Queries and keys are reordered alike, so their
    products stay.
    """
    halves = states.detach().reshape(heads, 2, -1, *states.shape[1:])
    return halves.transpose(1, 2).reshape(states.shape)


def _head_norm(attention: Any, heads: Heads, eps: float) -> Norm | None:
    """The norms that some models put on each query and key head as one, or None."""
    if not hasattr(attention, "q_norm"):
        return None
    query, key = _paired(attention.q_norm.weight, 1), _paired(attention.k_norm.weight, 1)
    return Norm(torch.cat([query.expand(heads.queries, -1), key.expand(heads.keys, -1)]), eps)


def _angles(model: PreTrainedModel, length: int) -> Tensor:
    """Rotations of every position as complex numbers `[length, width / 2]`."""
    rotary: Any = model.model.rotary_emb
    frequencies = rotary.inv_freq.detach().float()
    turns = torch.arange(length, device=frequencies.device).float()[:, None] * frequencies[None]
    return torch.polar(torch.full_like(turns, float(rotary.attention_scaling)), turns)
