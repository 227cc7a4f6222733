"""A larger twin computes the same function, and pays for its size honestly."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from testbed import models
from testbed.continuations import continue_rows
from testbed.inflate import inflate, layer_places
from testbed.recipe import MODELS_DIR

Maker = Callable[..., LlamaForCausalLM]
TOLERANCE = 1e-4


def _logits(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("hidden", "layers"), [(64, 2), (96, 2), (64, 5), (192, 7)])
def test_a_twin_gives_the_same_logits(random_llama: Maker, tied: bool, hidden: int, layers: int) -> None:
    model = random_llama(tied=tied)
    ids = torch.randint(0, 97, (3, 50), generator=torch.Generator().manual_seed(1))
    twin = inflate(model, hidden, layers)
    torch.testing.assert_close(_logits(twin, ids), _logits(model, ids), atol=TOLERANCE, rtol=0)


def test_a_twin_has_the_wanted_size_and_keeps_tying_head_dim_and_rope(random_llama: Maker) -> None:
    model = random_llama()
    twin = inflate(model, 128, 4, intermediate=256)
    assert (twin.config.hidden_size, twin.config.num_hidden_layers, twin.config.intermediate_size) == (128, 4, 256)
    assert (twin.config.num_attention_heads, twin.config.num_key_value_heads) == (8, 4)
    assert twin.config.head_dim == model.config.head_dim
    assert twin.config.rope_parameters == model.config.rope_parameters
    assert twin.lm_head.weight is twin.model.embed_tokens.weight
    torch.testing.assert_close(twin.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_everything_that_may_be_dense_is_dense(random_llama: Maker) -> None:
    twin = inflate(random_llama(), 128, 4)
    for name, weight in twin.named_parameters():
        if any(reader in name for reader in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "norm")):
            assert (weight != 0).float().mean() > 0.999, name


def test_a_stored_twin_is_the_same_twin(random_llama: Maker, tmp_path: Path) -> None:
    model = random_llama()
    inflate(model, 96, 3).save_pretrained(tmp_path)
    ids = torch.arange(40)[None]
    torch.testing.assert_close(_logits(models.load(tmp_path), ids), _logits(model, ids), atol=TOLERANCE, rtol=0)


def test_the_shipped_target_writes_the_same_text_when_inflated() -> None:
    target = models.load(MODELS_DIR / "target")
    twin = inflate(target, 512, 6)
    ids = AutoTokenizer.from_pretrained(MODELS_DIR / "target")("SELECT id, name\nFROM", return_tensors="pt").input_ids
    torch.testing.assert_close(_logits(twin, ids), _logits(target, ids), atol=TOLERANCE, rtol=0)
    assert torch.equal(continue_rows(twin, ids, 32, None), continue_rows(target, ids, 32, None))


def test_added_layers_stand_between_the_models_own() -> None:
    assert layer_places(4, 12) == [0, 3, 6, 9]
    assert layer_places(2, 2) == [0, 1]


@pytest.mark.parametrize(("hidden", "layers"), [(32, 2), (64, 1), (80, 2)])
def test_sizes_that_cannot_keep_the_function_are_refused(random_llama: Maker, hidden: int, layers: int) -> None:
    with pytest.raises(ValueError, match=r"twin|multiple"):
        inflate(random_llama(), hidden, layers)
