"""Random Hugging Face models small enough for tests, saved as folders, and the slow truth about their logits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import (
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from cosine.core.tree import ROOT, Grower, TokenTree

VOCAB_SIZE = 96
WINDOW = 7

SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "eos_token_id": 3,
    "initializer_range": 0.3,
}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=4, tie_word_embeddings=True),
    "llama-grouped": LlamaConfig(**SHAPE, num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "llama-scaled-rope": LlamaConfig(
        **SHAPE,
        num_key_value_heads=1,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=2),
    "qwen2-mixed-windows": Qwen2Config(
        **SHAPE,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=WINDOW,
        layer_types=["full_attention", "sliding_attention"],
    ),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16),
    "mistral-window": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=WINDOW),
    "gemma2-softcap": Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=WINDOW),
    "gpt2": GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=3, initializer_range=0.3
    ),
}


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """A random float32 model."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases, or they would be trivial
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.train(False)
    return model


def save(model: PreTrainedModel, folder: Path) -> Path:
    """The model and a tokenizer of single characters as a folder."""
    model.save_pretrained(folder)
    Tokenizer(models.BPE(vocab={chr(0x100 + i): i for i in range(VOCAB_SIZE)}, merges=[])).save(
        str(folder / "tokenizer.json")
    )
    return folder


def slow_logits(model: PreTrainedModel, tokens: list[int]) -> NDArray[np.float32]:
    """The last token's logits `[vocab]` by a stock forward pass over the whole sequence, without any cache."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    result: NDArray[np.float32] = logits.float().numpy()
    return result


def random_tree(dice: random.Random, nodes_max: int) -> TokenTree:
    """Up to `nodes_max` nodes, hung anywhere."""
    grower = Grower()
    for _ in range(dice.randint(0, nodes_max)):
        grower.add(dice.randint(ROOT, len(grower) - 1), dice.randrange(VOCAB_SIZE), 1.0, 1)
    return grower.tree()
