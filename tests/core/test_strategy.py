"""Strategies are rows of a table; the table makes sense."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from enum import Enum

import pytest

from cosine.core.errors import BadRequest
from cosine.core.strategy import KNOBS, PRESETS, Choice, Strategy, check_demands, parse


def test_a_preset_is_found_by_its_name_and_empty_takes_the_default() -> None:
    assert {name: parse(name).name for name in PRESETS} == {name: name for name in PRESETS}
    assert parse("", "plain").name == "plain"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadRequest) as caught:
        parse("magic")
    assert caught.value.reason == "UNKNOWN_STRATEGY"
    assert all(name in caught.value.message for name in PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_is_consistent(name: str) -> None:
    row = PRESETS[name]
    assert (row.choice is Choice.NONE) == (row.depth == 0)
    assert 1 <= row.drafter_count <= 64
    assert row.fusion_interval <= max(1, row.depth)
    assert row.width >= 1
    assert row.beam >= 1
    assert row.depth <= row.node_budget <= 64
    assert row.source


def written(value: object) -> str:
    """A knob's value as a request says it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.name.lower() if isinstance(value, Enum) else str(value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_knob_of_a_row_can_be_given_as_text(name: str) -> None:
    row = PRESETS[name]
    for knob in KNOBS:
        changed = parse(f"{name}:{knob}={written(getattr(row, knob))}")
        assert replace(changed, name=row.name, demanded=frozenset()) == row


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("cosine:colour=red", "UNKNOWN_KNOB", "the knobs are choice, drafter"),
        ("cosine:depth", "KNOB_VALUE", "0 to 64"),
        ("cosine:depth=65", "KNOB_VALUE", "0 to 64"),
        ("cosine:depth=4.5", "KNOB_VALUE", "0 to 64"),
        ("cosine:value_min=nan", "KNOB_VALUE", "0.0 to 1.0"),
        ("cosine:calibrated=maybe", "KNOB_VALUE", "yes or no"),
        ("cosine:choice=best", "KNOB_VALUE", "none, first, all, routed, bandit"),
        ("cosine:cut=smallest", "KNOB_VALUE", "value, largest"),
        ("cosine:score=none", "KNOB_VALUE", "hits, harmonic"),
        ("cosine:depth=4,depth=6", "KNOBS_CONTRADICT", "depth has two values"),
        ("plain:depth=4", "KNOBS_CONTRADICT", "choice=none"),
        ("vanilla:depth=0", "KNOBS_CONTRADICT", "choice=none"),
        ("vanilla:cut=largest", "KNOBS_CONTRADICT", "length=goodput"),
        ("vanilla:verifiers=2", "KNOBS_CONTRADICT", "at least as many runs"),
        ("cosine:runs=2", "KNOBS_CONTRADICT", "cooperation=single"),
        ("pipeinfer:lookahead=2", "KNOBS_CONTRADICT", "lookahead=0"),
        ("cosine:drafter=code", "KNOBS_CONTRADICT", "choice=first"),
        ("vanilla:drafter_count=3", "KNOBS_CONTRADICT", "one drafter for a request"),
        ("spin:drafter_count=2", "KNOBS_CONTRADICT", "one drafter for a request"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason_and_with_what_is_possible(
    text: str, reason: str, words: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.reason == reason
    assert words in caught.value.message


def test_a_row_of_ones_own_is_found_by_its_name_and_held_to_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Strategy("own", "nobody's", Choice.ALL, depth=3, node_budget=3)
    monkeypatch.setitem(PRESETS, "own", good)
    assert parse("own") is good
    assert parse("own:depth=2").depth == 2
    monkeypatch.setitem(PRESETS, "own", replace(good, runs=2, lookahead=4))
    with pytest.raises(BadRequest, match="look ahead by themselves"):
        parse("own")


@pytest.mark.parametrize(
    ("text", "verifiers", "drafters", "reason"),
    [
        ("dsi", 1, 3, "TOO_FEW_VERIFIERS"),
        ("dsi", 2, 3, ""),
        ("dsi", None, None, ""),
        ("dsi:verifiers=4", 3, 3, "TOO_FEW_VERIFIERS"),
        ("cosine", 1, 1, ""),
        ("cosine", 1, 0, ""),
        ("cosine:drafter_count=3", 1, 2, "TOO_FEW_DRAFTERS"),
        ("cosine:first_count=3", 1, 2, "TOO_FEW_DRAFTERS"),
        ("cosine:first_count=2", 1, 2, ""),
        ("cosine:drafter_count=1", 1, 0, "TOO_FEW_DRAFTERS"),
        ("cosine:drafter_count=3", 1, None, ""),
    ],
)
def test_only_what_was_asked_for_by_number_must_be_there(
    text: str, verifiers: int | None, drafters: int | None, reason: str
) -> None:
    refusing = pytest.raises(BadRequest, match="the mesh has") if reason else nullcontext()
    with refusing as caught:
        check_demands(parse(text), verifiers, drafters)
    assert not reason or (caught is not None and caught.value.reason == reason)
