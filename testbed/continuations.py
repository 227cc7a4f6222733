"""The target's own continuations of training text, with its most likely tokens: what the drafters are distilled on.

Half of the rows are greedy, half sampled at temperature 1, because the mesh serves both.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from testbed.recipe import Recipe
from testbed.tokens import Tokens, windows

ROWS_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows of the target's text and what it thought of them.

    `ids` [rows, length], `top_ids` and `top_logprobs` [rows, length - 1, top]. Position `t` of the last two is the
    target's view of token `t + 1`.
    """

    ids: torch.Tensor
    top_ids: torch.Tensor
    top_logprobs: torch.Tensor

    def save(self, path: Path) -> None:
        """Writes one file; a later run reads it instead of asking the target again."""
        torch.save({"ids": self.ids, "top_ids": self.top_ids, "top_logprobs": self.top_logprobs}, path)

    @staticmethod
    def load(path: Path) -> "Lessons":
        """Reads what `save` wrote."""
        return Lessons(**torch.load(path, weights_only=True))


@torch.inference_mode()
def continue_rows(
    model: LlamaForCausalLM, prompts: torch.Tensor, length: int, dice: torch.Generator | None
) -> torch.Tensor:
    """`[rows, length]` new tokens after `prompts` [rows, prompt]: greedy without `dice`, at temperature 1 with it."""
    ids, cache, picks = prompts, None, []
    for _ in range(length):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        scores, cache = out.logits[:, -1].float(), out.past_key_values
        if dice is not None:
            scores = scores + gumbel_noise(scores.shape, dice).to(scores.device)
        ids = scores.argmax(-1, keepdim=True)
        picks.append(ids)
    return torch.cat(picks, dim=1)


def gumbel_noise(shape: torch.Size, dice: torch.Generator) -> torch.Tensor:
    """Noise whose addition turns argmax into a sample at temperature 1."""
    return -torch.empty(shape).exponential_(generator=dice).log()


def write_lessons(model: LlamaForCausalLM, stream: Tokens, recipe: Recipe, seed: int, device: str) -> Lessons:
    """Lets the target (rounded to bfloat16, as shipped) continue windows of one domain's training stream."""
    teacher = model.eval()
    torch.nn.Module.to(teacher, device, torch.bfloat16)
    dice = torch.Generator().manual_seed(seed)
    starts = windows(stream, recipe.continuations, recipe.continuation_prompt, np.random.default_rng(seed))
    parts = []
    for number, prompts in enumerate(torch.split(torch.from_numpy(starts), ROWS_AT_ONCE)):
        prompts = prompts.to(device)
        fresh = continue_rows(teacher, prompts, recipe.continuation_length, dice if number % 2 else None)
        parts.append(_views(teacher, torch.cat([prompts, fresh], dim=1), recipe.teacher_top))
    return Lessons(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


@torch.inference_mode()
def _views(teacher: LlamaForCausalLM, ids: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logprobs = teacher(input_ids=ids[:, :-1], use_cache=False).logits.float().log_softmax(-1)
    values, indices = logprobs.topk(top, dim=-1)
    return ids.short().cpu(), indices.short().cpu(), values.half().cpu()
