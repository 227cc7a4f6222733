"""What fusion keeps of drafters that are gone: what it has learned of them, for a bounded number."""

from __future__ import annotations

import pytest
from test_fusion_machine import MERGED, NOW, SINGLE, fusion, guess, item, plan

from cosine.core.fusion import MISSES_MAX


def test_of_very_many_drafters_those_judged_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosine.core.fusion.DRAFTERS_MAX", 2)
    monkeypatch.setattr("cosine.core.voting.DRAFTERS_MAX", 2)
    machine = fusion()
    for step_id, name in enumerate("abac", 1):
        session = f"s{step_id}"
        machine.drafter_up(name)
        machine.plan(plan(SINGLE, item(session, drafters=(name,)), round_id=step_id), NOW)
        machine.candidates(step_id, [guess(5, session=session)], 900, NOW)
        machine.plan(plan(SINGLE, item(session, base=2, tokens=(5,), drafters=()), round_id=10 + step_id), NOW)
        machine.drafter_down(name, NOW)
    assert [machine._calibrations[name].estimator()(0.5) > 0.5 for name in "ac"] == [True, True]
    assert len(machine._calibrations) == 2
    assert [machine._votes.weight(name) > 1.0 for name in "abc"] == [True, False, True]


def test_nothing_is_kept_of_deadlines_that_a_drafter_missed_once_it_is_gone() -> None:
    machine = fusion("a")
    for round_id in range(MISSES_MAX):
        machine.plan(plan(MERGED, item(f"s{round_id}", drafters=("a",)), round_id=round_id), NOW)
    machine.tick(NOW + 1)
    machine.drafter_down("a", NOW + 1)
    assert (machine._misses, machine._resting) == ({}, {})
