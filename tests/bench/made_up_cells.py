"""Cells and observations with figures made up for tests."""

from __future__ import annotations

from dataclasses import replace

from bench.paper.cells import Cell, CellKey, Figures
from bench.paper.counters import OVERRUNS, PASSES, READ
from bench.paper.measuring import Observation, Served

KEY = CellKey("paper", "digest", "plain", "plain", "closed-4", 64, 4, 0.0, 8.0)
FIGURES = Figures(
    token_ms=20.0,
    token_ms_95=1.0,
    tokens_per_s=200.0,
    first_token_ms=60.0,
    acceptance=1.0,
    verifier_busy=0.9,
    drafted_wasted=None,
    verified_wasted=None,
    overrun=0.0,
    texts=("a", "b"),
    pass_count=100,
)


def cell(strategy: str = "plain", load: str = "closed-4", run: int = 0, refused: str = "", **figures: object) -> Cell:
    """A cell; figures replace the made-up ones."""
    key = replace(KEY, strategy=strategy, park=strategy, load=load, run=run)
    found = None if refused else replace(FIGURES, **figures)  # type: ignore[arg-type]  # a dict of keywords has one type of values
    return Cell(key, found, refused, took_s=10.0, sources="code")


def observation(served: tuple[Served, ...], token_count: int, wall_s: float, late: float = 0.0) -> Observation:
    """An observation of a mesh with one verifier that counted nothing but its passes, so many of them too late."""
    counted = dict.fromkeys(READ, 0.0) | {PASSES: 50.0, OVERRUNS: late}
    return Observation(served, token_count, wall_s, {"verifier": counted})
