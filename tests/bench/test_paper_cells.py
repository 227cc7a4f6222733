"""Cells: real seconds become the profile's, and what stands in the file is not lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_cells import FIGURES, KEY, cell, observation

from bench.paper.cells import CellFile, figures, half_width, parse_cell
from bench.paper.measuring import Served, digest

SCALE = 8.0


def test_figures_are_in_the_profiles_time() -> None:
    served = (
        Served(first_s=0.8, total_s=8.0, token_count=50, round_count=20, accepted_count=30, text="a"),
        Served(first_s=1.6, total_s=16.0, token_count=50, round_count=30, accepted_count=20, text="b"),
    )
    found = figures(observation(served, token_count=120, wall_s=20.0), SCALE, 1)
    assert found.token_ms == pytest.approx((8000 / 50 + 16000 / 50) / 2 / SCALE)
    assert found.tokens_per_s == pytest.approx(120 / 20 * SCALE)
    assert found.first_token_ms == pytest.approx((800 + 1600) / 2 / SCALE)
    assert found.acceptance == pytest.approx((50 + 50) / 50)
    assert found.texts == ("a", "b")
    assert found.pass_count == 50


def test_plain_decoding_commits_one_token_a_verdict() -> None:
    served = (Served(1.0, 2.0, 10, round_count=10, accepted_count=0, text="a"),)
    assert figures(observation(served, 10, 2.0), SCALE, 1).acceptance == 1.0


def test_an_interval_needs_two_values_and_uses_student() -> None:
    assert half_width([3.0]) == 0.0
    assert half_width([1.0, 3.0]) == pytest.approx(12.71 * 2**0.5 / 2**0.5)
    assert half_width([2.0] * 40) == 0.0
    assert half_width([0.0, 1.0] * 50) == pytest.approx(1.96 * 0.5025 / 10, rel=1e-3)


@pytest.mark.parametrize(("overrun", "is_valid"), [(0.0, True), (0.02, True), (0.0201, False)])
def test_figures_are_invalid_where_the_pace_was_not_kept(overrun: float, is_valid: bool) -> None:
    assert replace(FIGURES, overrun=overrun).is_valid is is_valid


def test_a_single_pass_that_overran_makes_no_short_run_invalid() -> None:
    counts = {count: replace(FIGURES, overrun=0.04, overrun_count=count).is_valid for count in (None, 1, 2)}
    assert counts == {None: False, 1: True, 2: False}


def test_figures_of_a_mesh_whose_passes_nobody_saw_are_invalid() -> None:
    assert replace(FIGURES, pass_count=1).is_valid
    assert not replace(FIGURES, pass_count=0).is_valid


def test_a_cell_of_a_version_that_did_not_count_passes_keeps_its_validity() -> None:
    line = cell().as_json()
    del line["figures"]["pass_count"], line["figures"]["overrun_count"]
    found = parse_cell(json.dumps(line))
    assert found is not None
    assert found.figures is not None
    assert found.figures.pass_count is None
    assert found.figures.is_valid


def test_cells_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cells.jsonl"
    cells = [cell(), cell("cosine:lookahead=0,calibrated=no", drafted_wasted=0.5), cell("spin", refused="no spin here")]
    file = CellFile(path)
    for one in cells:
        file.add(one)
    again = CellFile(path)
    assert [again.get(one.key) for one in cells] == cells
    assert again.get(replace(KEY, run=1)) is None


def test_a_cell_measured_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    CellFile(path).add(cell(token_ms=20.0))
    CellFile(path).add(cell(token_ms=30.0))
    found = CellFile(path).get(KEY)
    assert found is not None
    assert found.figures is not None
    assert found.figures.token_ms == 30.0
    assert len(path.read_text().splitlines()) == 2


def test_a_line_torn_by_an_interruption_costs_that_cell_only(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    CellFile(path).add(cell())
    CellFile(path).add(cell("cosine"))
    path.write_text(path.read_text()[:-40])
    file = CellFile(path)
    assert file.get(cell().key) == cell()
    assert file.get(cell("cosine").key) is None
    file.add(cell("spin"))
    assert CellFile(path).get(cell("spin").key) == cell("spin")


def test_a_byte_that_is_no_text_costs_that_cell_only(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    for name in ("plain", "cosine"):
        CellFile(path).add(cell(name))
    path.write_bytes(path.read_bytes().replace(b'"strategy": "plain"', b'"strategy": "pl\xffin"'))
    file = CellFile(path)
    assert file.get(cell().key) is None
    file.add(cell("spin"))
    again = CellFile(path)
    assert [again.get(cell(name).key) for name in ("cosine", "spin")] == [cell("cosine"), cell("spin")]


@pytest.mark.parametrize("line", ["", "{", "[]", '{"key": {}}', "3"])
def test_what_is_no_cell_is_skipped(line: str) -> None:
    assert parse_cell(line) is None


def test_texts_that_differ_have_other_names() -> None:
    assert digest([1, 23]) != digest([12, 3])
    assert digest([1, 2]) == digest((1, 2))
