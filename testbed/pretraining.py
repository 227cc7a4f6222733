"""Language modelling on the training streams: how the target and the general drafter learn the four domains."""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import LlamaForCausalLM

from testbed.recipe import Domain, Recipe, Shares
from testbed.tokens import Tokens, windows
from testbed.training import StepLoss


def mixed_batch(streams: Mapping[Domain, Tokens], recipe: Recipe, shares: Shares, batch: int, step: int) -> Tokens:
    """`[batch, sequence_length + 1]` windows of all domains in these shares; depends on seed and step alone."""
    dice = np.random.default_rng((recipe.seed, step))
    domains = list(shares)
    counts = dice.multinomial(batch, [shares[domain] for domain in domains])
    rows = [
        windows(streams[domain], int(count), recipe.sequence_length + 1, dice)
        for domain, count in zip(domains, counts, strict=True)
    ]
    return np.concatenate(rows)


def language_loss(
    streams: Mapping[Domain, Tokens], recipe: Recipe, shares: Shares, batch: int, device: str
) -> StepLoss:
    """The loss of a step: cross-entropy of the next token on a mixed batch, in bfloat16 autocast."""

    def step_loss(model: LlamaForCausalLM, step: int) -> torch.Tensor:
        ids = torch.from_numpy(mixed_batch(streams, recipe, shares, batch, step)).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    return step_loss
