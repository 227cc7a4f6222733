"""Strategies are rows of a table; the table makes sense."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from enum import Enum
from pathlib import Path

import pytest

from cosine.core.errors import BadRequest
from cosine.core.strategy import KNOBS, PRESETS, Choice, Strategy, check_demands, parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"\b(?:leader|" + "|".join(PRESETS) + r"):[a-z_]+=[a-z0-9_.,=]*[a-z0-9]")


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
        ("cosine:cooperation=single", "KNOBS_CONTRADICT", "give drafter_count=1,first_count=1"),
        ("cosine:cooperation=single,drafter_count=1", "KNOBS_CONTRADICT", "first_count=5"),
        ("cosine:cooperation=single,first_count=1", "KNOBS_CONTRADICT", "drafter_count=2"),
        ("specinfer:cooperation=single", "KNOBS_CONTRADICT", "drafter_count=64"),
        ("specinfer:reading=fork", "KNOBS_CONTRADICT", "cooperation=fused"),
        ("cosine:cooperation=merged,fusion_interval=4", "KNOBS_CONTRADICT", "fusion_interval=4 lies between exchanges"),
        ("cosine:choice=all,score=harmonic", "KNOBS_CONTRADICT", "choice=routed"),
        ("spin:priors=yes", "KNOBS_CONTRADICT", "choice=routed and length=goodput"),
        ("pipeinfer:groups=2", "KNOBS_CONTRADICT", "groups=1"),
        ("spin:runs=2", "KNOBS_CONTRADICT", "groups=1"),
        ("vanilla:depth=6,node_budget=4", "KNOBS_CONTRADICT", "node_budget=6 or more, or depth=4 or less"),
        ("minions:node_budget=4", "KNOBS_CONTRADICT", "node_budget=8 or more, or depth=4 or less"),
        ("cosine:length=fixed,node_budget=6", "KNOBS_CONTRADICT", "node_budget=8 or more"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason_and_with_what_is_possible(
    text: str, reason: str, words: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.reason == reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "cosine:cooperation=single,drafter_count=1,first_count=1",
        "cosine:cooperation=single,drafter_count=1,first_count=0",
        "vanilla:depth=6,node_budget=6",
        "cosine:node_budget=6",  # an upper bound beside another
        "cosine:reading=fork,fusion_interval=2",
        "cosine:score=harmonic",
        "specinfer:length=goodput,priors=yes",
        "minions:groups=3",
    ],
)
def test_knobs_that_go_together_are_taken(text: str) -> None:
    assert parse(text).name == text


@pytest.mark.parametrize(
    "text",
    ["vanilla:reading=replace", "cosine:cooperation=merged,fusion_interval=1", "spin:priors=no", "dsi:score=hits"],
)
def test_a_knob_that_asks_for_nothing_may_be_given_to_any_row(text: str) -> None:
    """So that sweeps need not know which row has which knob."""
    assert parse(text).name == text


@pytest.mark.parametrize("text", ["cosine:cooperation=merged", "cosine:choice=all", "cosine:choice=first"])
def test_what_a_preset_leaves_without_effect_is_not_held_against_one_that_asked_for_something_else(text: str) -> None:
    """Its `fusion_interval`, `priors`, `first_count`."""
    assert parse(text).name == text


def examples() -> list[str]:
    """Every strategy with knobs that the docs name."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    return sorted({found for text in texts for found in EXAMPLE.findall(text)})


def test_the_docs_name_strategies_that_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "leader", Strategy("leader", "the docs add it", Choice.FIRST, depth=4))
    found = examples()
    assert len(found) > 3
    assert [parse(text).name for text in found] == found


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


def test_the_budget_follows_the_depth_that_is_asked_for() -> None:
    assert (parse("vanilla:depth=6").node_budget, parse("vanilla:depth=2").node_budget) == (6, 4)
    assert parse("vanilla:depth=6,node_budget=7").node_budget == 7
    assert parse("vanilla:depth=6").demanded == {"depth"}
