"""Makes a larger twin of a Llama model that computes the same function: the same text at a larger model's cost.

    python -m testbed.inflate --source testbed/models/target --out DIR --hidden 768 --layers 12 [--dtype bfloat16]

How the function is kept:
- The residual stream is padded with zeros: new columns of the embedding and new output rows of `o_proj` and
  `down_proj` are 0.
- RMSNorm divides by the root of the mean square over the width. Widening from h to H with zeros scales the mean
  square by h/H, so eps is scaled by h/H and the norm weights by sqrt(h/H).
- Everything that only reads zeros, or whose result is multiplied by zero, is dense random: the new input columns of
  q/k/v/gate/up, new heads, new feed-forward units.
- Added layers are the identity: their `o_proj` and `down_proj` are 0, all else is random. They stand between the
  others.

`head_dim`, the rotary embedding, the ratio of query to key heads and the tying of the embeddings stay as they are.
In float32 the logits agree to 1e-4; a bfloat16 twin rounds the rescaled norm weights anew, unless sqrt(h/H) is a power
of two.
"""

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cosine.core.errors import BadRequest
from cosine.text.command_line import Parser, bordered, check_folder, whole
from testbed import models

NOISE_SCALE = 0.02
INTERMEDIATE_RATIO = 8 / 3
INTERMEDIATE_MULTIPLE = 256
READERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")

Weights = Mapping[str, Tensor]


def inflate(
    model: LlamaForCausalLM, hidden: int, layers: int, intermediate: int | None = None, seed: int = 0
) -> LlamaForCausalLM:
    """A twin of `model` with width `hidden` and `layers` layers that gives the same logits; `model` is left as it is.

    The twin has the dtype of `model`. `intermediate` defaults to 8/3 of the width, rounded up to a multiple of 256.
    Raises ValueError where the wanted size is smaller than the model or does not fit its heads.
    """
    config = inflated_config(model.config, hidden, layers, intermediate)
    twin = _empty(config, model.dtype)
    dice = torch.Generator().manual_seed(seed)
    places = layer_places(model.config.num_hidden_layers, layers)
    weights: Weights = dict(twin.named_parameters())
    source: Weights = dict(model.named_parameters())
    with torch.no_grad():
        _fill_edges(weights, source, model.config.hidden_size)
        for layer in range(layers):
            origin = places.index(layer) if layer in places else None
            _fill_layer(weights, source, layer, origin, dice)
    twin.eval()
    return twin


def inflated_config(config: LlamaConfig, hidden: int, layers: int, intermediate: int | None = None) -> LlamaConfig:
    """The twin's configuration; raises ValueError where the function could not be kept."""
    intermediate = intermediate or max(config.intermediate_size, _default_intermediate(hidden))
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
    if hidden < config.hidden_size or layers < config.num_hidden_layers or intermediate < config.intermediate_size:
        raise ValueError(
            f"a twin cannot be smaller than its model (hidden {config.hidden_size}, layers {config.num_hidden_layers}, "
            f"intermediate {config.intermediate_size}); ask for at least that"
        )
    if hidden % (head_dim * group):
        raise ValueError(
            f"hidden {hidden} must be a multiple of head_dim {head_dim} x {group} query heads per key head"
        )
    if config.attention_bias or config.mlp_bias:
        raise ValueError("biases are not inflated; take a model without attention_bias and mlp_bias")
    twin = copy.deepcopy(config)
    twin.hidden_size, twin.num_hidden_layers, twin.intermediate_size = hidden, layers, intermediate
    twin.head_dim = head_dim
    twin.num_attention_heads = max(config.num_attention_heads, hidden // head_dim)
    twin.num_key_value_heads = twin.num_attention_heads // group
    twin.rms_norm_eps = config.rms_norm_eps * config.hidden_size / hidden
    return twin


def layer_places(own: int, layers: int) -> list[int]:
    """Where the model's own layers stand among the twin's, in order and evenly spread."""
    return [index * layers // own for index in range(own)]


def _default_intermediate(hidden: int) -> int:
    return -(-int(hidden * INTERMEDIATE_RATIO) // INTERMEDIATE_MULTIPLE) * INTERMEDIATE_MULTIPLE


def _empty(config: LlamaConfig, dtype: torch.dtype) -> LlamaForCausalLM:
    """A model whose weights are not yet written: drawing billions of weights twice would double the time."""
    with torch.device("meta"):
        twin = LlamaForCausalLM(config)
    torch.nn.Module.to(twin, dtype)
    twin.to_empty(device="cpu")
    twin.tie_weights()
    rotary = twin.model.rotary_emb  # its buffers are computed, not loaded
    twin.model.rotary_emb = type(rotary)(config=config)
    return twin


def _random(weight: Tensor, dice: torch.Generator) -> None:
    weight.normal_(0.0, NOISE_SCALE, generator=dice)


def _fill_edges(weights: Weights, source: Weights, width: int) -> None:
    """Embedding, last norm and, where it is not tied, the output matrix."""
    _fill_norm(weights["model.norm.weight"], source["model.norm.weight"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name].zero_()
            weights[name][:, :width] = source[name]


def _fill_norm(weight: Tensor, own: Tensor | None) -> None:
    weight.fill_(1.0)
    if own is not None:
        scale = (own.numel() / weight.numel()) ** 0.5
        weight.fill_(scale)
        weight[: own.numel()] = own * scale


def _fill_layer(weights: Weights, source: Weights, layer: int, origin: int | None, dice: torch.Generator) -> None:
    """Writes one layer of the twin: the model's layer `origin` with room around it, or an identity (`origin` None)."""
    for part in (*READERS, *WRITERS, *NORMS):
        weight = weights[f"model.layers.{layer}.{part}.weight"]
        own = None if origin is None else source[f"model.layers.{origin}.{part}.weight"]
        if part in NORMS:
            _fill_norm(weight, own)
        elif part in READERS:
            _fill_reader(weight, own, dice)
        else:
            _fill_writer(weight, own)


def _fill_reader(weight: Tensor, own: Tensor | None, dice: torch.Generator) -> None:
    """Random everywhere: new columns read zeros, new rows feed zeros; the model's own block stands in the corner."""
    _random(weight, dice)
    if own is not None:
        weight[: own.shape[0], : own.shape[1]] = own


def _fill_writer(weight: Tensor, own: Tensor | None) -> None:
    """Zero outside the model's own block, so that nothing new reaches the residual stream."""
    weight.zero_()
    if own is not None:
        weight[: own.shape[0], : own.shape[1]] = own


def main(words: Sequence[str] | None = None) -> int:
    """Writes the twin of a stored model as a Hugging Face folder with the same tokenizer. The exit status."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="testbed.inflate", description=__doc__, formatter_class=layout)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=whole(), required=True)
    parser.add_argument("--layers", type=whole(), required=True)
    parser.add_argument("--intermediate", type=whole())
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    arguments = parser.parse_args(words)
    return bordered("testbed.inflate", partial(_run, arguments), "stopped; the twin is not whole")


def _run(arguments: argparse.Namespace) -> int:
    models.check_folders(arguments.source)
    check_folder("--out", arguments.out)
    try:
        config = LlamaConfig.from_pretrained(arguments.source)
        inflated_config(config, arguments.hidden, arguments.layers, arguments.intermediate)
    except ValueError as error:
        raise BadRequest("SIZE", str(error)) from error
    model = LlamaForCausalLM.from_pretrained(arguments.source, dtype=getattr(torch, arguments.dtype))
    twin = inflate(model, arguments.hidden, arguments.layers, arguments.intermediate)
    twin.generation_config = model.generation_config
    twin.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(arguments.source).save_pretrained(arguments.out)
    count = sum(parameter.numel() for parameter in twin.parameters())
    print(f"{arguments.out}: {count / 1e6:.1f}M parameters, {arguments.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
