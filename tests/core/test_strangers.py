"""An over-confident stranger among the drafters costs next to nothing once its confidences have been seen through."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from harness import TARGET, draft_step, plain_text, toy

from cosine.core.fusion import Fusion, Session, Step, Trees
from cosine.core.plan import Cooperation, DraftPlan, PlanItem
from cosine.core.sampling import Sampling
from cosine.engine.verifying import VerifyItem, verify

HONEST = {"a": "toy:seed=1,own=5,skill=0.8"}
STRANGER = {"z": "toy:seed=1,own=99,skill=0,sharpness=50"}
ROUNDS = 90
SETTLED = 30
LOSS_MAX = 0.1


class RawFusion(Fusion):
    """Fusion that takes every drafter at its word."""

    def _estimate(self, session: Session, drafter: str) -> Callable[[float], float]:
        return float


def acceptance_length(fusion: Fusion, drafters: Mapping[str, str], interval: int, sampling: Sampling) -> float:
    """Committed tokens per round and session, after the first rounds, where all drafters take part."""
    target, engines = toy(TARGET), {name: toy(source) for name, source in drafters.items()}
    for name in engines:
        fusion.drafter_up(name)
    texts = {"s": [0, 7], "t": [1, 7]}
    planned, committed = dict.fromkeys(texts, 0), []
    for round_id in range(ROUNDS):
        items = tuple(
            PlanItem(name, planned[name], tuple(text[planned[name] :]), tuple(engines), 6, 2, sampling=sampling)
            for name, text in texts.items()
        )
        planned = {name: len(text) for name, text in texts.items()}
        commands = fusion.plan(DraftPlan(round_id, Cooperation.FUSED, items, interval), float(round_id))
        while isinstance(step := commands.pop(0), Step):
            commands += fusion.candidates(step.step_id, draft_step(engines[step.drafter], step), 0, float(round_id))
        assert isinstance(step, Trees)
        for result in step.results:
            text, held = texts[result.session_id], len(target.tokens(result.session_id))
            item = VerifyItem(result.session_id, held, tuple(text[held:]), result.tree, sampling)
            text += verify(target, [item])[0].token_ids
            committed += [len(text) - planned[result.session_id]] if round_id >= SETTLED else []
    for name, text in texts.items():
        assert text[2:] == plain_text(text[:2], len(text) - 2, sampling), name
    return sum(committed) / len(committed)


@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_confident_stranger_costs_at_most_a_tenth_of_the_acceptance_length(temperature: float, interval: int) -> None:
    sampling = Sampling(temperature=temperature, seed=3)
    alone = acceptance_length(Fusion(), HONEST, interval, sampling)
    beside = acceptance_length(Fusion(), HONEST | STRANGER, interval, sampling)
    assert beside >= (1 - LOSS_MAX) * alone


@pytest.mark.parametrize("interval", [1, 4])
def test_without_calibration_the_same_stranger_costs_much_more(interval: int) -> None:
    alone = acceptance_length(RawFusion(), HONEST, interval, Sampling())
    beside = acceptance_length(RawFusion(), HONEST | STRANGER, interval, Sampling())
    assert beside < (1 - LOSS_MAX) * alone


def test_two_honest_drafters_together_are_accepted_further_than_either_alone() -> None:
    other = {"b": "toy:seed=1,own=6,skill=0.8"}
    together = acceptance_length(Fusion(), HONEST | other, 4, Sampling())
    assert together > max(acceptance_length(Fusion(), one, 4, Sampling()) for one in (HONEST, other))
