"""A training run that was cut off and continued ends where an uninterrupted one ends."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from testbed import models
from testbed.continuations import Lessons, write_lessons
from testbed.distillation import distillation_loss
from testbed.pretraining import language_loss, mixed_batch
from testbed.recipe import DOMAINS, Domain, Recipe, Schedule, Shape
from testbed.tokens import Tokens
from testbed.training import Stage, train

TINY = Recipe(
    vocab_size=64,
    context_length=64,
    sequence_length=24,
    target=Shape(hidden=32, layers=1, intermediate=32, head_dim=16),
    continuations=8,
    continuation_prompt=6,
    continuation_length=6,
    teacher_top=5,
)
STREAMS: dict[Domain, Tokens] = {
    domain: np.random.default_rng(number).integers(0, 64, 400) for number, domain in enumerate(DOMAINS)
}
SCHEDULE = Schedule(steps=6, batch=4, learning_rate=1e-2)


def _weights(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def _trained(folder: Path, pieces: list[int | None]) -> torch.Tensor:
    loss = language_loss(STREAMS, TINY, TINY.shares, SCHEDULE.batch, "cpu")
    model = models.build(TINY.target, TINY, 0)
    for steps_max in pieces:
        model = models.build(TINY.target, TINY, 0)  # a new process starts from nothing but the checkpoint
        train(model, Stage("tiny", SCHEDULE, folder / "tiny.pt"), loss, steps_max)
    return _weights(model)


def test_a_continued_run_ends_where_an_uninterrupted_one_ends(tmp_path: Path) -> None:
    assert torch.equal(_trained(tmp_path / "whole", [None]), _trained(tmp_path / "cut", [2, 1, None]))


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    assert torch.equal(_trained(tmp_path, [None]), _trained(tmp_path, [None]))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first = mixed_batch(STREAMS, TINY, TINY.shares, 4, 7)
    assert np.array_equal(first, mixed_batch(STREAMS, TINY, TINY.shares, 4, 7))
    assert not np.array_equal(first, mixed_batch(STREAMS, TINY, TINY.shares, 4, 8))


def test_the_learning_rate_rises_stays_and_falls_to_almost_nothing() -> None:
    schedule = Schedule(steps=100, batch=1, learning_rate=1.0, warmup_share=0.1, descent_share=0.2)
    assert [round(schedule.rate_at(step), 2) for step in (0, 9, 50, 80, 90, 99)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.05]


def test_lessons_hold_the_targets_own_view_and_survive_the_disk(tmp_path: Path) -> None:
    target = models.build(TINY.target, TINY, 0)
    lessons = write_lessons(target, STREAMS["code"], TINY, seed=1, device="cpu")
    assert lessons.ids.shape == (8, 12)
    assert lessons.top_ids.shape == lessons.top_logprobs.shape == (8, 11, 5)
    lessons.save(tmp_path / "lessons.pt")
    assert torch.equal(Lessons.load(tmp_path / "lessons.pt").top_ids, lessons.top_ids)


def test_distilling_brings_a_drafter_closer_to_the_target(tmp_path: Path) -> None:
    target = models.build(TINY.target, TINY, 0)
    lessons = write_lessons(target, STREAMS["code"], TINY, seed=1, device="cpu")
    loss = distillation_loss([lessons], 8, 0, "cpu")
    drafter = models.build(TINY.target, TINY, 1)
    before = loss(drafter, 1000).item()
    train(drafter, Stage("drafter", Schedule(20, 8, 1e-2), tmp_path / "drafter.pt"), loss)
    assert loss(drafter, 1000).item() < before
