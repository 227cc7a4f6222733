"""What `make sim` computes is what the mesh does: one small case in real processes and in virtual time.

Not a speed that is demanded of anything: two runs of the same requests are compared. A machine that is too busy to keep
the profile's pace shows as passes that overran their time; such a cell says nothing. What it spends on messages adds to
a token's time and is no part of the profile. So a cell that disagrees is measured once more, in slower motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.paper.cells import Cell, CellFile, Figures
from bench.paper.loads import parse_load
from bench.paper.runner import Entrant, Extent, Runner
from cosine.sim.profile import Profile, profile_path, read_profile

pytest.importorskip("torch")

STRATEGIES = ("plain", "vanilla:drafter=general", "cosine:lookahead=0", "cosine")
DRAFTERS = ("general", "code")
LOAD = parse_load("closed-4")
# In motion so slow that messages between processes, a few milliseconds a round, are little beside a target's pass.
EXTENT = Extent(token_count=12, prompt_count=1, open_s=0.0, time_scale=6.0, cell_timeout_s=60.0)
AGREEMENT = 0.1
TRIES = 2


def small_park() -> Profile:
    """The paper's hardware with fewer drafters, for this machine's sake."""
    paper = read_profile(profile_path("paper-70b"))
    return replace(paper, drafters={name: paper.drafters[name] for name in DRAFTERS})


def ratio(figures: Figures) -> float:
    """Time of a token in the mesh, in times of the simulator's."""
    return figures.token_ms / (figures.virtual_ms or 0.0)


def settled(figures: Figures | None) -> bool:
    return figures is not None and figures.is_valid and ratio(figures) == pytest.approx(1.0, abs=AGREEMENT)


async def measured(strategies: Sequence[str], folder: Path, slower: int) -> dict[str, Figures]:
    """Strategies, one after the other on one mesh, in motion so many times as slow."""
    cells: list[Cell] = []
    extent = replace(EXTENT, time_scale=EXTENT.time_scale * slower)
    runner = Runner(small_park(), extent, CellFile(folder / "cells.jsonl"), cells.append)
    await runner.run([Entrant(name, (LOAD,), park="cosine") for name in strategies], runs=1, again=False)
    assert [cell.refused for cell in cells] == [""] * len(strategies)
    return {cell.key.strategy: cell.figures for cell in cells if cell.figures is not None}


@pytest.mark.timeout(240)  # usually half a minute; a busy machine takes longer to start and tries again
async def test_a_token_takes_the_time_that_the_simulator_says(tmp_path: Path) -> None:
    found: dict[str, Figures] = {}
    for attempt in range(TRIES):
        left = [name for name in STRATEGIES if not settled(found.get(name))]
        found |= await measured(left, tmp_path / f"{attempt}", 1 + attempt) if left else {}
    ratios = {name: ratio(its) for name, its in found.items() if its.is_valid}
    assert ratios == pytest.approx(dict.fromkeys(ratios, 1.0), abs=AGREEMENT)
    overran = [f"{name} ({its.overrun:.1%})" for name, its in found.items() if not its.is_valid]
    if overran:
        pytest.skip(f"this machine is too busy to keep the profile's pace: passes overran under {', '.join(overran)}")
