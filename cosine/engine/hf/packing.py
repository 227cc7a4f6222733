"""Linear layers with their weights laid out once for oneDNN, which is what a forward pass on a CPU spends its time in.

Torch's stock linear reads bfloat16 weights at a quarter of the memory's speed because it lays them out anew in every
call. Small float32 matrices stay as they are: a call of oneDNN costs about 12 microseconds more than one of MKL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FLOAT32_ELEMENTS_LEAST = 1 << 18
ROWS_LEAST = {torch.bfloat16: 4}  # oneDNN's kernels for 1 and 2 rows of bfloat16 are slower than the one for 4


class Linear:
    """`x @ weight.T + bias` for `x` `[rows, in]`, several weights of one input stacked into one product."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self._weight = torch.cat([weight.detach() for weight in weights]) if len(weights) > 1 else weights[0].detach()
        self._bias = _stack(weights, biases)
        self.packed = packs(self._weight)
        if self.packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)
            self._product = cast(Callable[..., Tensor], torch.ops.mkldnn._linear_pointwise.default)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return self._product(x, self._weight, self._bias, "none", [], "")
        return linear(x, self._weight, self._bias)


class PackedLinear(nn.Module):
    """A drop-in for `nn.Linear` inside a model that is otherwise left alone."""

    def __init__(self, stock: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = stock.in_features, stock.out_features
        self._linear = Linear([stock.weight], [stock.bias])

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x)


def packs(weight: Tensor) -> bool:
    """True where a packed weight is supported here and faster."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32 and weight.numel() >= FLOAT32_ELEMENTS_LEAST


def pack(model: nn.Module) -> Callable[[], None]:
    """Replaces the model's linear layers where that pays; the returned function puts the old ones back."""
    replaced: list[tuple[nn.Module, str, nn.Linear]] = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and packs(child.weight):
                setattr(parent, name, PackedLinear(child))
                replaced.append((parent, name, child))

    def undo() -> None:
        for parent, name, child in replaced:
            setattr(parent, name, child)

    return undo


def _stack(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    if all(bias is None for bias in biases):
        return None
    pairs = zip(weights, biases, strict=True)
    return torch.cat([weight.new_zeros(weight.shape[0]) if bias is None else bias.detach() for weight, bias in pairs])
