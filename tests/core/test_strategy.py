"""Strategies are rows of a table; the table makes sense."""

from __future__ import annotations

import pytest

from cosine.core.errors import BadRequest
from cosine.core.strategy import PRESETS, Choice, parse


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
