"""What an engine says it computes on."""

from __future__ import annotations

import os

import pytest

from cosine.core.processors import UNKNOWN
from cosine.engine.base import EngineLimits
from cosine.engine.loading import EngineOptions, open_engine
from cosine.engine.processors import processor_of


def test_peers_on_one_machine_name_the_same_processor_and_leave_one_core_for_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    first, second = processor_of("cpu", 1), processor_of("cpu", 2)
    assert first.name == second.name
    assert (first.cores, first.threads, second.threads) == (3, 1, 2)


def test_peers_that_are_pinned_to_different_cores_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for cores in ({0, 1}, {2, 3}, {0, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        names.add(processor_of("cpu", 1).name)
    assert len(names) == 3


def test_a_paced_engine_plays_hardware_of_its_own() -> None:
    fast = open_engine("toy", EngineOptions(), EngineLimits()).card
    paced = open_engine("toy", EngineOptions(pace="0.1"), EngineLimits()).card
    assert processor_of(fast.device, 1).name != processor_of(paced.device, 1).name
    assert processor_of(paced.device, 1).name == processor_of(paced.device, 1).name


def test_of_an_unknown_kind_of_device_nothing_is_said() -> None:
    assert processor_of("xpu:0", 1) is UNKNOWN
