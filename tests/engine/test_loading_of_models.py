"""What the engine makes of a model's folder: number formats, devices, the context in which its logits are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAPE, build, save, slow_logits
from transformers import LlamaConfig
from transformers.models.auto import AutoModelForCausalLM

from cosine.core.errors import BadRequest, Mismatch
from cosine.core.tree import ROOT, TokenTree, path_tokens
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.hf.loading import read_lore
from cosine.engine.transformers_engine import load

LIMITS = EngineLimits(sessions_max=3, tokens_max=100, tree_nodes_max=16, prefill_chunk=32)
FIRST_LENGTH = 40
HALF_HEAD = 4


def longrope(**more: Any) -> LlamaConfig:
    """A model whose positions turn otherwise once the longest text of a batch is past 40 tokens."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 3.2,
        "original_max_position_embeddings": FIRST_LENGTH,
        "short_factor": [1.0] * HALF_HEAD,
        "long_factor": [1.0 + 2 * dim for dim in range(HALF_HEAD)],
    }
    return LlamaConfig(**SHAPE, num_key_value_heads=2, rope_parameters=rope, **more)


@pytest.fixture(scope="module")
def longrope_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(longrope(), dtype=torch.float32)
    return str(save(model, tmp_path_factory.mktemp("longrope")))


def test_a_longrope_model_keeps_to_the_context_of_its_short_factors(longrope_folder: str) -> None:
    engine = load(longrope_folder, dtype="float32", limits=LIMITS)
    assert engine.card.tokens_max == FIRST_LENGTH
    with pytest.raises(BadRequest, match="at most 40 tokens"):
        engine.forward([Segment("a", 0, (5,) * (FIRST_LENGTH + 1))])


def test_a_longrope_session_does_not_depend_on_the_longest_beside_it(longrope_folder: str) -> None:
    engine = load(longrope_folder, dtype="float32", limits=LIMITS)
    short, long = tuple(range(4, 14)), tuple(4 + place % 80 for place in range(engine.card.tokens_max))
    alone = np.array(engine.forward([Segment("a", 0, short)]).row(0))
    engine.close(["a"])
    beside = np.array(engine.forward([Segment("a", 0, short), Segment("b", 0, long)]).row(0))
    np.testing.assert_allclose(beside, alone, atol=1e-5)


def test_a_context_differs_by_kind_of_layer(longrope_folder: str) -> None:
    config = longrope()
    config.rope_parameters = {"full_attention": config.rope_parameters, "sliding_attention": {"rope_type": "default"}}
    assert read_lore(Path(longrope_folder), config).context_length == FIRST_LENGTH


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.05), ("bfloat16", 0.4)])
@pytest.mark.parametrize("name", ["llama-grouped", "gpt2", "mistral-window"])
def test_every_number_format_on_offer_runs_trees(name: str, dtype: str, tolerance: float, tmp_path: Path) -> None:
    engine, model = load(str(save(build(name), tmp_path)), dtype=dtype, limits=LIMITS), build(name)
    tokens, tree = (5, 17, 4, 60, 33, 8), TokenTree((7, 9, 11, 7), (ROOT, ROOT, 0, 1))
    logits = engine.forward([Segment("a", 0, tokens, tree)])
    for node in range(ROOT, len(tree)):
        expected = slow_logits(model, [*tokens, *path_tokens(tree, node)])
        np.testing.assert_allclose(logits.row(node + 1), expected, atol=tolerance * expected.std())


@pytest.mark.parametrize("device", ["foo", "cuda:x"])
def test_a_device_of_no_known_name_is_refused(device: str, longrope_folder: str) -> None:
    with pytest.raises(BadRequest, match=f"device is '{device}'; it must be auto, cpu or cuda"):
        load(longrope_folder, device=device, limits=LIMITS)


def test_a_device_past_the_last_is_named(longrope_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Mismatch, match="sees no cuda:2; its last CUDA device is cuda:1"):
        load(longrope_folder, device="cuda:2", limits=LIMITS)
