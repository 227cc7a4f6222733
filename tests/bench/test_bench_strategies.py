"""Who drafts for a strategy that keeps to one drafter, in the benchmark of this machine."""

from __future__ import annotations

import pytest

from bench.__main__ import asked
from cosine.core.strategy import PRESETS, Choice, parse


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_it_is_the_one_that_knows_all_domains(name: str) -> None:
    single = PRESETS[name].choice is Choice.FIRST
    assert parse(asked(name)).drafter == ("general" if single else "")
    assert parse(asked(name)).choice is PRESETS[name].choice


def test_other_knobs_stay_and_a_drafter_that_was_named_is_taken() -> None:
    assert asked("vanilla:depth=6") == "vanilla:depth=6,drafter=general"
    assert asked("vanilla:drafter=code") == "vanilla:drafter=code"
