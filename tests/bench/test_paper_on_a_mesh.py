"""The comparison end to end: a real mesh at a profile's pace, measured over its metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.paper.cells import Cell, CellFile
from bench.paper.loads import parse_load
from bench.paper.report import Report
from bench.paper.runner import Entrant, Extent, Runner
from cosine.sim.profile import profile_path, read_profile

pytest.importorskip("torch")

EXTENT = Extent(token_count=6, prompt_count=1, open_s=0.3, time_scale=1.0, cell_timeout_s=60.0)


async def test_strategies_are_measured_on_one_mesh_and_a_refused_one_is_no_obstacle(tmp_path: Path) -> None:
    cells: list[Cell] = []
    runner = Runner(read_profile(profile_path("paper-70b")), EXTENT, CellFile(tmp_path / "cells.jsonl"), cells.append)
    closed, opened = parse_load("closed-2"), parse_load("open-high")
    lacking = "dsi:verifiers=2,runs=2"
    await runner.run(
        [
            Entrant("plain", (closed,), park="vanilla"),
            Entrant(lacking, (closed,), park="vanilla"),
            Entrant("vanilla", (closed, opened)),
        ],
        runs=1,
        again=False,
    )
    plain, refused, vanilla, under_arrivals = cells
    assert plain.figures is not None
    assert vanilla.figures is not None
    assert under_arrivals.figures is not None
    assert refused.refused.startswith(f"strategy '{lacking}' ")
    assert plain.figures.acceptance == 1.0
    assert plain.figures.drafted_wasted is None
    assert vanilla.figures.acceptance > 1.0
    assert vanilla.figures.drafted_wasted is not None
    assert vanilla.figures.verifier_busy > 0
    assert len(vanilla.figures.texts) == 4
    assert plain.figures.pass_count
    assert runner.passes_seen >= plain.figures.pass_count + (vanilla.figures.pass_count or 0)
    assert [figures.virtual_ms is None for figures in (plain.figures, vanilla.figures, under_arrivals.figures)] == [
        False,
        False,
        True,
    ]
    assert Report(cells).same_text("closed-2", "vanilla")
