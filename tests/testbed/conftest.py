"""Fixtures of the test bed's tests: one torch thread, small random models."""

from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several processes with many threads each collapse on two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def random_llama() -> Callable[..., LlamaForCausalLM]:
    """Makes a small Llama with weights large enough that its logits differ clearly."""

    def make(seed: int = 0, tied: bool = True, heads: int = 4, key_heads: int = 2) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=97,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            head_dim=16,
            max_position_embeddings=128,
            rms_norm_eps=1e-3,
            initializer_range=0.2,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
        model = LlamaForCausalLM(config)
        model.eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.uniform_(0.5, 1.5)
        return model

    return make
