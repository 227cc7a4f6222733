"""Builds, stores and loads the Llama models of the test bed; knows nothing of data or training."""

import os
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from cosine.core.errors import NotFound
from testbed.recipe import Recipe, Shape
from testbed.tokens import END_ID


def build(shape: Shape, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """A fresh float32 model of `shape` with tied embeddings, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    heads = shape.hidden // shape.head_dim
    config = LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=shape.head_dim,
        max_position_embeddings=recipe.context_length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
    )
    return LlamaForCausalLM(config)


def check_folders(*folders: Path) -> None:
    """Raises NotFound where a folder holds no model; a library that loads one would ask a hub for it."""
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise NotFound("MODEL_NOT_FOUND", f"there is no model in {folder} (no config.json); check the path")


def load(folder: Path) -> LlamaForCausalLM:
    """The model of `folder` in float32, ready to be asked (not trained)."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
    """Writes a Hugging Face folder at once: readers see the old folder or the new one, never half of one."""
    fresh, stale = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=END_ID, eos_token_id=END_ID, pad_token_id=END_ID
    )
    torch.nn.Module.to(model, dtype)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    for file in fresh.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone
    if folder.exists():
        card = folder / "README.md"
        if card.exists():
            shutil.copy(card, fresh / "README.md")
        os.replace(folder, stale)
    os.replace(fresh, folder)
    shutil.rmtree(stale, ignore_errors=True)


def parameter_count(model: torch.nn.Module) -> int:
    """How many weights the model has, tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
