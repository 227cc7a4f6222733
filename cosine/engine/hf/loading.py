"""Finds a model, reads it, and says clearly what is wrong where that fails. Knows files and configs, not sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils.logging import disable_progress_bar

from cosine.core.errors import Mismatch, NotFound, Unavailable
from cosine.engine.hf.slots import Plane
from cosine.text.tokenizer import eos_token_ids, fingerprint, load_tokenizer
from cosine.text.tokenizer import vocab_size as tokenizer_size

WANTED_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt")
FIRST_LENGTH = "original_max_position_embeddings"
UNSUPPORTED_LAYER_TYPES = ("chunked_attention", "reference_sliding_attention")


@dataclass(frozen=True, slots=True)
class Lore:
    """What is written beside the weights: vocabulary, end tokens, longest context (None where unsaid).

    The context of a longrope model is the one it was first trained on: past it, transformers rotates all positions of a
    batch by other factors, so that one long session would change the logits of every short one beside it.
    """

    vocab_size: int
    fingerprint: str
    eos_token_ids: tuple[int, ...]
    context_length: int | None


def find_folder(source: str) -> Path:
    """The folder of a model: `source` itself, or the local copy of a hub id, fetched where needed."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise NotFound(
                "MODEL_NOT_FOUND", f"{source} holds no config.json: name the folder that save_pretrained wrote"
            )
        return folder
    try:
        return Path(snapshot_download(source, allow_patterns=list(WANTED_FILES)))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise NotFound(
            "MODEL_NOT_FOUND",
            f"there is neither a folder {source!r} nor a model of that name on the hub; check the name (and HF_TOKEN)",
            {"model": source},
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(
            "HUB_UNREACHABLE",
            f"there is no folder {source!r}, and the Hugging Face hub does not answer; check the path, or the network "
            "(HF_ENDPOINT, HF_HUB_OFFLINE)",
            {"model": source},
        ) from error


def read_model(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model of a folder, all weights present; raises Mismatch, saying what to do."""
    disable_progress_bar()  # a service's log is not a terminal
    try:
        config = AutoConfig.from_pretrained(folder)
        _refuse_unsupported(config)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype or "auto", output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise Mismatch(
            "MODEL_DAMAGED",
            f"{folder} could not be read as a causal language model: {_first_line(error)}. Fetch or save it again, "
            "or update transformers if the architecture is newer than it",
        ) from error
    model, report = loaded
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:3])
        raise Mismatch("MODEL_DAMAGED", f"the weights in {folder} lack {names}: fetch or save the model again")
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


def _refuse_unsupported(config: PreTrainedConfig) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise unsupported(config, "it has an encoder; only decoder-only models can continue a token sequence")
    text = config.get_text_config()
    for kind in getattr(text, "layer_types", None) or ():
        if kind in UNSUPPORTED_LAYER_TYPES:
            raise unsupported(config, f"it has layers of type {kind}, whose cache cannot hold a tree")


def unsupported(config: PreTrainedConfig, reason: str) -> Mismatch:
    """The refusal of a model that the engine cannot run exactly."""
    kind = getattr(config, "model_type", "model")
    return Mismatch("MODEL_UNSUPPORTED", f"{kind} is not supported: {reason}", {"model_type": kind})


def read_windows(model: PreTrainedModel) -> tuple[int | None, ...]:
    """Each layer's sliding window, as transformers' own cache for this model sees it; refuses layers with a state."""
    windows: list[int | None] = []
    for layer in DynamicCache(config=model.config).layers:
        if isinstance(layer, DynamicSlidingWindowLayer):
            windows.append(layer.sliding_window)
        elif type(layer) is DynamicLayer or type(layer).__name__ == "DummyLayer":
            windows.append(None)
        else:
            raise unsupported(
                model.config,
                f"layer {len(windows)} keeps a {type(layer).__name__}, a state that cannot be rolled back; "
                "use a model with attention layers only",
            )
    return tuple(windows)


def read_planes(cache: DynamicCache, layer_count: int) -> tuple[Plane, ...]:
    """Shapes of what a model put into transformers' own cache, key and value per layer; empty where it put nothing."""
    planes: list[Plane] = []
    for index in range(layer_count):
        layer = cache.layers[index] if index < len(cache.layers) else None
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if isinstance(states, torch.Tensor) and states.dim() == 4:
                planes.append(Plane(states.shape[1], states.shape[3]))
            else:
                planes.append(Plane(0, 0))
    return tuple(planes)


def read_lore(folder: Path, config: PreTrainedConfig) -> Lore:
    """Vocabulary, end tokens and context length of a folder."""
    tokenizer = load_tokenizer(str(folder))
    text = config.get_text_config()
    vocab_size = min(tokenizer_size(tokenizer), int(text.vocab_size))
    return Lore(vocab_size, fingerprint(tokenizer), eos_token_ids(str(folder)), _context_length(text))


def _context_length(text: PreTrainedConfig) -> int | None:
    ropes = getattr(text, "rope_parameters", None) or {}
    of_layers = [entry for entry in ropes.values() if isinstance(entry, dict)]  # where they differ by kind of layer
    lengths = [getattr(text, "max_position_embeddings", None)]
    lengths += [rope.get(FIRST_LENGTH) for rope in (ropes, *of_layers) if rope.get("rope_type") == "longrope"]
    return min((int(length) for length in lengths if length), default=None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
