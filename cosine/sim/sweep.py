"""How the mesh scales: one number grows, all else follows, and throughput, latency and computing time are noted.

Times of scheduler and fusion are measured on the machine at hand (`us_per_token`), everything else is virtual. A
scheduler beside each verifier is charged nothing for its computing; `one scheduler` is charged what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cosine.sim.control import Control, ControlCost
from cosine.sim.library import Library
from cosine.sim.load import Load, closed_load
from cosine.sim.mesh import Mesh
from cosine.sim.outcome import run
from cosine.sim.peers import Shape
from cosine.sim.profile import Profile

STRATEGY = "cosine"
DRAFTER_COUNTS = (1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1000)
VERIFIER_COUNTS = (1, 2, 4, 8, 16, 32, 64)
LIVE_COUNTS = (1, 4, 16, 64, 256, 1024)
REQUEST_COUNTS = (100, 1_000, 10_000, 100_000)
CLIENTS = 16  # per verifier
CELLS = 8
DRAFTERS_EACH = 5
DRAFTERS_FIXED = 20
TOKENS = 64
TOKENS_SHORT = 8


@dataclass(frozen=True, slots=True)
class Point:
    """One run. Times in milliseconds unless the name says otherwise; `scheduler_us` and `fusion_us` are microseconds of
    real computing per committed token, `round_us` the scheduler's per verdict."""

    series: str
    count: int
    tokens_per_s: float
    latency_ms: float
    acceptance_length: float
    verifier_busy: float
    drafter_busy: float
    scheduler_us: float
    fusion_us: float
    round_us: float
    control_busy: float

    @property
    def label(self) -> str:
        return f"{self.series}: {self.count}"


Sweep = Callable[[Profile, Library, int], Iterator[Point]]


def measure(series: str, count: int, profile: Profile, library: Library, load: Load, shape: Shape) -> Point:
    """Runs once."""
    row, mesh = run(profile, library, STRATEGY, load, shape)
    schedulers = [cell.scheduling for cell in mesh.cells]
    fusions = [cell.fusing for cell in mesh.cells]
    verdict_count = max(1.0, mesh.token_count / row.acceptance_length)
    return Point(
        series,
        count,
        row.tokens_per_s,
        row.latency_ms,
        row.acceptance_length,
        row.verifier_busy,
        row.drafter_busy,
        _us(schedulers, mesh.token_count),
        _us(fusions, mesh.token_count),
        _us(schedulers, verdict_count),
        max(control.busy_s for control in (*schedulers, *fusions)) / mesh.clock.now,
    )


def drafters(profile: Profile, library: Library, _request_count: int) -> Iterator[Point]:
    """More and more replicas of the drafters for a fixed number of verifiers, each with its scheduler: all for all, or
    each scheduler with drafters of its own."""
    load = closed_load(CELLS * CLIENTS, 2 * CELLS * CLIENTS, TOKENS)
    for count in DRAFTER_COUNTS:
        yield measure("shared", count, profile, library, load, Shape(CELLS, count))
        if count >= CELLS * len(profile.drafters):
            yield measure("own", count, profile, library, load, Shape(CELLS, count, shared_drafters=False))


def verifiers(profile: Profile, library: Library, _request_count: int) -> Iterator[Point]:
    """More and more verifiers, with a scheduler each or all at one; drafters in proportion, or a fixed number."""
    cost = control_cost(profile, library)
    for count in VERIFIER_COUNTS:
        load = closed_load(count * CLIENTS, 2 * count * CLIENTS, TOKENS)
        enough = DRAFTERS_EACH * count
        own = Shape(count, enough, shared_drafters=False)
        yield measure("a scheduler each, own drafters", count, profile, library, load, own)
        yield measure("a scheduler each, shared drafters", count, profile, library, load, Shape(count, enough))
        yield measure(
            f"a scheduler each, {DRAFTERS_FIXED} drafters", count, profile, library, load, Shape(count, DRAFTERS_FIXED)
        )
        wide = replace(profile, verifier_count=count)
        one = Shape(1, enough, live_max=count * CLIENTS, control=cost)
        yield measure("one scheduler", count, wide, library, load, one)


def requests(profile: Profile, library: Library, request_count: int) -> Iterator[Point]:
    """More and more requests at once at one scheduler; then more and more in all."""
    for count in LIVE_COUNTS:
        load = closed_load(count, max(24, 2 * count), TOKENS)
        yield measure("at once", count, profile, library, load, _crowded(count))
    for count in [entry for entry in REQUEST_COUNTS if entry <= request_count]:
        load = closed_load(CELLS * CLIENTS, count, TOKENS_SHORT)
        yield measure("in all", count, profile, library, load, Shape(CELLS, CELLS * DRAFTERS_EACH))


SWEEPS: dict[str, Sweep] = {"drafters": drafters, "verifiers": verifiers, "requests": requests}


def control_cost(profile: Profile, library: Library) -> ControlCost:
    """What scheduler and fusion compute for, per message and per session in it, measured on this machine."""
    few, many = (_controlled(profile, library, count) for count in (4, 64))
    scheduler = _line(few.cells[0].scheduling, many.cells[0].scheduling)
    fusion = _line(few.cells[0].fusing, many.cells[0].fusing)
    return ControlCost(*scheduler, *fusion)


def _controlled(profile: Profile, library: Library, count: int) -> Mesh:
    load = closed_load(count, max(24, 2 * count), TOKENS)
    return run(profile, library, STRATEGY, load, _crowded(count))[1]


def _crowded(count: int) -> Shape:
    """One scheduler and one verifier that take so many requests at once."""
    return Shape(drafter_count=DRAFTERS_FIXED, live_max=count, verifier_sessions_max=count)


def _line(few: Control, many: Control) -> tuple[float, float]:
    """Microseconds per message and per item that explain both runs, neither below zero."""
    determinant = few.message_count * many.item_count - many.message_count * few.item_count
    event_s = (few.spent_s * many.item_count - many.spent_s * few.item_count) / determinant
    event_s = min(max(0.0, event_s), many.spent_s / many.message_count)
    return event_s * 1e6, (many.spent_s - event_s * many.message_count) / many.item_count * 1e6


def _us(controls: Sequence[Control], count: float) -> float:
    return sum(control.spent_s for control in controls) * 1e6 / count
