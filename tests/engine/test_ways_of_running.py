"""Every way the transformers engine can run a model, forced one at a time: each must agree with the stock model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import VOCAB_SIZE, build, random_tree, save, slow_logits
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from cosine.core.errors import Mismatch
from cosine.core.tree import ROOT, TokenTree, path_to, path_tokens
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.hf import apart, assembly, attention, decoder, packing, slots
from cosine.engine.hf.decoder import DecoderRunner
from cosine.engine.hf.packing import Linear, PackedLinear
from cosine.engine.hf.runner import StockRunner
from cosine.engine.transformers_engine import TransformersEngine, load

LIMITS = EngineLimits(sessions_max=3, tokens_max=100, prefill_chunk=5)
NAMES = ("llama-grouped", "qwen2-mixed-windows", "mistral-window", "qwen3")


def force_decoder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assembly, "StockRunner", None)


def force_decoder_copying(patch: pytest.MonkeyPatch) -> None:
    """As with caches that do not fit into the processor's."""
    force_decoder(patch)
    patch.setattr(apart, "CACHED_BYTES_MAX", -1)


def force_decoder_joined(patch: pytest.MonkeyPatch) -> None:
    force_decoder(patch)
    patch.setattr(attention, "Apart", lambda planes: attention.joined)


def force_stock_model(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assembly, "recognised", lambda model: False)


def force_stock_model_copying(patch: pytest.MonkeyPatch) -> None:
    force_stock_model(patch)
    patch.setattr(apart, "CACHED_BYTES_MAX", -1)


def force_stock_model_packed(patch: pytest.MonkeyPatch) -> None:
    force_stock_model(patch)
    patch.setattr(packing, "FLOAT32_ELEMENTS_LEAST", 0)


def force_stock_attention(patch: pytest.MonkeyPatch) -> None:
    force_stock_model(patch)
    patch.setattr(attention, "Apart", lambda planes: None)  # fails in the probe


WAYS: tuple[tuple[Callable[[pytest.MonkeyPatch], None], type, bool], ...] = (
    (force_decoder, DecoderRunner, True),
    (force_decoder_copying, DecoderRunner, True),
    (force_decoder_joined, DecoderRunner, True),
    (force_stock_model, StockRunner, True),
    (force_stock_model_copying, StockRunner, True),
    (force_stock_model_packed, StockRunner, True),
    (force_stock_attention, StockRunner, False),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0].__name__)
def test_each_way_equals_stock_decoding(
    way: tuple[Callable[[pytest.MonkeyPatch], None], type, bool],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    force, kind, own_attention = way
    force(monkeypatch)
    monkeypatch.setattr(slots, "ROWS_FIRST", 4)  # so that slots grow while they hold something
    model = build(name)
    engine = load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS)
    assert type(engine._model) is kind
    assert getattr(engine._model, "_own", True) is own_attention
    expect_rounds(engine, model)


def expect_rounds(engine: TransformersEngine, model: PreTrainedModel) -> None:
    """Batches of two sessions that grow along random paths."""
    dice = random.Random(11)
    texts: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(4):
        segments = []
        for session, text in texts.items():
            fresh = tuple(dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 7)))
            segments.append(Segment(session, len(text), fresh, random_tree(dice, 8)))
            text.extend(fresh)
        logits = engine.forward(segments)
        row = 0
        for segment in segments:
            text = texts[segment.session_id]
            for node in range(ROOT, len(segment.tree)):
                expected = slow_logits(model, text + path_tokens(segment.tree, node))
                np.testing.assert_allclose(logits.row(row), expected, atol=1e-4, rtol=1e-4)
                row += 1
        for segment in segments:
            path = path_to(segment.tree, dice.randint(ROOT, len(segment.tree) - 1))
            engine.keep(segment.session_id, path)
            texts[segment.session_id].extend(segment.tree.token_ids[node] for node in path)


def test_a_model_that_no_way_runs_right_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(assembly.TOLERANCE, torch.float32, 0.0)
    with pytest.raises(Mismatch, match="standard deviation") as caught:
        load(str(save(build("llama"), tmp_path)), dtype="float32")
    assert caught.value.reason == "MODEL_UNSUPPORTED"


def test_a_decoder_that_errs_is_caught_by_the_probe_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_paired", lambda states, heads: states)
    model = build("llama-grouped")
    engine = load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS)
    assert type(engine._model) is StockRunner
    expect_rounds(engine, model)


@pytest.mark.parametrize(
    "name", ["llama", "llama-grouped", "qwen2", "qwen3", "mistral-window", "gemma2-softcap", "gpt2"]
)
def test_bfloat16_is_as_near_to_the_truth_as_stock_bfloat16(name: str, tmp_path: Path) -> None:
    """Root mean square distance from float32 logits, over single rows, small trees and long ones."""
    truth_model = build(name).to(torch.bfloat16).float()
    folder = save(build(name).to(torch.bfloat16), tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    engine = load(str(folder), dtype="bfloat16", limits=LIMITS)
    dice = random.Random(5)
    text: list[int] = []
    ours: list[float] = []
    theirs: list[float] = []
    for node_count in (0, 0, 1, 2, 3, 12, 0):
        fresh = tuple(dice.randrange(VOCAB_SIZE) for _ in range(1 + node_count % 3))
        tree = TokenTree(
            tuple(dice.randrange(VOCAB_SIZE) for _ in range(node_count)),
            tuple(dice.randint(ROOT, node - 1) for node in range(node_count)),
        )
        logits = engine.forward([Segment("a", len(text), fresh, tree)])
        text.extend(fresh)
        for node in range(ROOT, node_count):
            tokens = text + path_tokens(tree, node)
            truth = slow_logits(truth_model, tokens)
            ours.append(float(np.square(logits.row(node + 1) - truth).mean()))
            theirs.append(float(np.square(slow_logits(stock, tokens) - truth).mean()))
        engine.keep("a", [])
    assert np.mean(ours) <= 1.2 * np.mean(theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["llama-grouped", "gemma2-softcap"])
def test_slots_take_the_room_of_the_models_own_precision(name: str, dtype: str, tmp_path: Path) -> None:
    engine = load(str(save(build(name), tmp_path)), dtype=dtype, limits=LIMITS)
    engine.forward([Segment("a", 0, (1, 2))])
    slot = engine._slots.find("a")
    assert slot is not None
    assert {block.dtype for block in slot.blocks} == {getattr(torch, dtype)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 33])
def test_packed_linear_layers_equal_stock_ones(dtype: torch.dtype, bias: bool, rows: int) -> None:
    torch.manual_seed(rows)
    stock = nn.Linear(520, 520, bias=bias, dtype=dtype)
    packed = PackedLinear(stock)
    assert packed._linear.packed == packing.packs(stock.weight)
    x = torch.randn(1, rows, 520, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), stock(x), atol=tolerance, rtol=tolerance)


def test_stacked_linear_layers_equal_separate_ones_also_where_only_some_have_a_bias() -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(16, 8), nn.Linear(16, 24, bias=False), nn.Linear(16, 8)]
    stacked = Linear([part.weight for part in parts], [part.bias for part in parts])
    x = torch.randn(5, 16)
    with torch.inference_mode():
        torch.testing.assert_close(stacked(x), torch.cat([part(x) for part in parts], -1))


def test_undoing_the_packing_gives_the_stock_layers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FLOAT32_ELEMENTS_LEAST", 0)
    model = build("llama")
    before = dict(model.named_modules())
    undo = packing.pack(model)
    packed_count = sum(isinstance(module, PackedLinear) for module in model.modules())
    assert packed_count in (0, 15)  # seven per layer and the head, or none where oneDNN is missing
    undo()
    assert dict(model.named_modules()) == before
