"""Distils a drafter on the target's continuations: KL to the target's likely tokens plus cross-entropy to its pick."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlamaForCausalLM

from testbed.continuations import Lessons
from testbed.training import StepLoss


def distillation_loss(lessons: Sequence[Lessons], batch: int, seed: int, device: str) -> StepLoss:
    """The loss of a step over rows drawn evenly from `lessons`; the rows depend on seed and step alone."""

    def step_loss(model: LlamaForCausalLM, step: int) -> torch.Tensor:
        dice = np.random.default_rng((seed, step))
        ids, top_ids, top_logprobs = _rows(lessons, batch, dice, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return _divergence(logits.float(), top_ids, top_logprobs)

    return step_loss


def _rows(
    lessons: Sequence[Lessons], batch: int, dice: np.random.Generator, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sources = dice.integers(0, len(lessons), size=batch)
    counts = [int((sources == number).sum()) for number in range(len(lessons))]
    chosen = [
        (lesson, torch.from_numpy(dice.integers(0, len(lesson.ids), size=count)))
        for lesson, count in zip(lessons, counts, strict=True)
    ]
    return (
        torch.cat([lesson.ids[rows] for lesson, rows in chosen]).long().to(device),
        torch.cat([lesson.top_ids[rows] for lesson, rows in chosen]).long().to(device),
        torch.cat([lesson.top_logprobs[rows] for lesson, rows in chosen]).float().to(device),
    )


def _divergence(logits: torch.Tensor, top_ids: torch.Tensor, top_logprobs: torch.Tensor) -> torch.Tensor:
    """Soft plus hard cross-entropy of `logits` [rows, length, vocab]; the likely tokens' shares are scaled to 1."""
    log_total = logits.logsumexp(-1, keepdim=True)
    likely = logits.gather(-1, top_ids) - log_total
    soft = -(top_logprobs.softmax(-1) * likely).sum(-1).mean()
    hard = -likely[..., 0].mean()  # top_ids are in falling order: the first is the target's pick
    return soft + hard
