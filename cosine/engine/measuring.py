"""How long an engine's forward passes take, measured once at start-up: a base per pass, and so much per row.

A pass is what workers do in a step or a batch: forward, picks on the host, keep. Shapes take turns, so that a noisy
moment disturbs all of them, and each counts with its median; the line through the medians is the model (design,
section 7). Passes over a short context only: what a long one adds is for whoever refines the model online.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cosine.core.picking import RowRule
from cosine.core.sampling import GREEDY
from cosine.core.tree import TokenTree
from cosine.engine.base import Engine, EngineLimits, Segment

SHAPES = ((1, 1), (1, 8), (4, 1), (4, 4))  # sessions, rows of each
CONTEXT_TOKENS = 32
ROUNDS_MAX = 9
BUDGET_S = 0.7  # no round of passes begins later

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TimeModel:
    """A forward pass over `rows` rows takes `base_ms + row_ms * rows`; neither is negative."""

    base_ms: float
    row_ms: float


def measure(engine: Engine, clock: Callable[[], float] = time.perf_counter) -> TimeModel:
    """The time model of a warmed-up engine whose sessions may be used; they are closed again. `clock` is in seconds.

    Takes about a second, or one pass per shape where that is longer. A paced engine is measured at its pace.
    """
    shapes = sorted({_within(shape, engine.limits, engine.card.tokens_max) for shape in SHAPES})
    names = [f"measuring-{index}" for index in range(max(count for count, _ in shapes))]
    start = clock()
    _pass(engine, [Segment(name, 0, (0,) * _context(engine)) for name in names])
    taken_ms: dict[Shape, list[float]] = {shape: [] for shape in shapes}
    for _ in range(ROUNDS_MAX):
        for shape, series in taken_ms.items():
            began = clock()
            _pass(engine, _segments(names[: shape[0]], shape[1], _context(engine)))
            series.append((clock() - began) * 1000)
        if clock() - start > BUDGET_S:
            break
    engine.close(names)
    return fit([(sessions * rows, statistics.median(series)) for (sessions, rows), series in taken_ms.items()])


def fit(points: Sequence[tuple[float, float]]) -> TimeModel:
    """The line of least squares through (rows, milliseconds), with both coefficients held at zero or above."""
    rows_mean = statistics.fmean(rows for rows, _ in points)
    ms_mean = statistics.fmean(ms for _, ms in points)
    spread = sum((rows - rows_mean) ** 2 for rows, _ in points)
    slope = sum((rows - rows_mean) * (ms - ms_mean) for rows, ms in points) / spread if spread else 0.0
    if slope * rows_mean > ms_mean:  # the base would be negative: the best line through the origin
        slope = sum(rows * ms for rows, ms in points) / sum(rows * rows for rows, _ in points)
        return TimeModel(0.0, slope)
    slope = max(0.0, slope)
    return TimeModel(ms_mean - slope * rows_mean, slope)


def _within(shape: Shape, limits: EngineLimits, tokens_max: int) -> Shape:
    sessions, rows = shape
    return min(sessions, limits.sessions_max), max(1, min(rows, 1 + limits.tree_nodes_max, tokens_max // 2))


def _context(engine: Engine) -> int:
    return max(1, min(CONTEXT_TOKENS, engine.card.tokens_max // 2))


def _segments(names: Sequence[str], rows: int, context: int) -> list[Segment]:
    """One token and a path of guesses per session, on the same context every time."""
    tree = TokenTree((0,) * (rows - 1), tuple(range(-1, rows - 2)))
    return [Segment(name, context, (0,), tree) for name in names]


def _pass(engine: Engine, segments: Sequence[Segment]) -> None:
    rules = [
        RowRule(GREEDY, segment.base_length + len(segment.token_ids) + depth)
        for segment in segments
        for depth in range(1 + len(segment.tree))
    ]
    engine.forward(segments).picks(rules)
    for segment in segments:
        engine.keep(segment.session_id, ())
