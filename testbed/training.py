"""One resumable training loop for every stage: a stage is a model, a schedule and a function that gives a step's loss.

The batch of a step depends on the seed and the step alone, so a run that was cut off and continued sees the
same batches.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from testbed.recipe import Schedule

CHECKPOINT_EVERY_S = 45.0
REPORT_EVERY_STEPS = 25

StepLoss = Callable[[LlamaForCausalLM, int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Stage:
    """A named training run; `checkpoint` is where it can be continued from."""

    name: str
    schedule: Schedule
    checkpoint: Path
    device: str = "cpu"


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms, one learning rate for both."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
        known = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self.members: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, rate: float) -> None:
        """One update at learning rate `rate`; leaves no gradients behind."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = rate
            member.step()
            member.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint must keep."""
        return [member.state_dict() for member in self.members]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Continues from what `state` gave."""
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)


def train(model: LlamaForCausalLM, stage: Stage, step_loss: StepLoss, steps_max: int | None = None) -> bool:
    """Trains in place to the end of the schedule, or `steps_max` steps of this call. True when the stage is done."""
    torch.nn.Module.to(model, stage.device).train()
    optimizers = Optimizers(model)
    first = _restore(model, optimizers, stage)
    last = stage.schedule.steps if steps_max is None else min(stage.schedule.steps, first + steps_max)
    began = saved = time.monotonic()
    for step in range(first, last):
        loss = step_loss(model, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(stage.schedule.rate_at(step))
        if step % REPORT_EVERY_STEPS == 0 or step + 1 == stage.schedule.steps:
            seconds = time.monotonic() - began
            print(
                f"{stage.name}: step {step + 1}/{stage.schedule.steps}, loss {loss.item():.3f}, {seconds:.0f} s",
                flush=True,
            )
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            _store(model, optimizers, stage, step + 1)
            saved = time.monotonic()
    _store(model, optimizers, stage, max(first, last))
    return last >= stage.schedule.steps


def _store(model: LlamaForCausalLM, optimizers: Optimizers, stage: Stage, step: int) -> None:
    stage.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    fresh = stage.checkpoint.with_suffix(".new")
    torch.save({"step": step, "model": model.state_dict(), "optimizers": optimizers.state()}, fresh)
    os.replace(fresh, stage.checkpoint)


def _restore(model: LlamaForCausalLM, optimizers: Optimizers, stage: Stage) -> int:
    if not stage.checkpoint.exists():
        return 0
    kept = torch.load(stage.checkpoint, map_location=stage.device, weights_only=True)
    model.load_state_dict(kept["model"])
    optimizers.restore(kept["optimizers"])
    return int(kept["step"])
