"""How the mesh scales: one number grows, all else follows, and throughput, latency and computing time are noted.

A sweep is a list of trials, each a run of its own, so that one that was interrupted goes on with those that are left.
Everything is virtual, and the same on every machine for the same seed, but what `Point` says is measured. A scheduler
beside each verifier is charged nothing for its computing; `one scheduler` is charged `CONTROL`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cosine.core.alarms import Alarms
from cosine.sim.control import Control, ControlCost
from cosine.sim.library import Library
from cosine.sim.load import Load, closed_load
from cosine.sim.memory import held_bytes
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
LIVE_BOUND = 64
REQUESTS_MIN = 24
TOKENS = 64
TOKENS_SHORT = 8
# What `control_cost` gave on two virtual cores of an AMD EPYC with Python 3.11, within what it gives from run to run
# (144 to 220, 40 to 54, 0, 152 to 194 in eight); stated, so that results stay the same.
CONTROL = ControlCost(scheduler_event_us=217.0, scheduler_item_us=45.0, fusion_event_us=0.0, fusion_item_us=163.0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep: a point of `series`, `count` along."""

    series: str
    count: int
    profile: Profile
    load: Load
    shape: Shape

    @property
    def token_count(self) -> int:
        """How many tokens are measured: about how long it takes."""
        return self.load.request_count * self.load.new_count


@dataclass(frozen=True, slots=True)
class Point:
    """One trial's figures. Times in milliseconds unless the name says otherwise; busy shares between 0 and 1.

    Measured on the machine at hand: `scheduler_us` and `fusion_us` of computing per committed token, `round_us` of the
    scheduler's per verdict. At the end the fullest scheduler holds `live_count` requests in `scheduler_kb` of memory,
    its alarms `alarms_kb` more, its fusion `fusion_kb`. Of all drafters `drafters_used` ever worked.
    """

    series: str
    count: int
    tokens_per_s: float
    latency_ms: float
    first_token_p95_ms: float
    acceptance_length: float
    verifier_busy: float
    drafter_busy: float
    drafter_busy_most: float
    drafters_used: int
    control_busy: float
    live_count: int
    scheduler_kb: float
    alarms_kb: float
    fusion_kb: float
    scheduler_us: float
    fusion_us: float
    round_us: float

    @property
    def tokens_per_s_each(self) -> float:
        """Throughput per unit of what grows."""
        return self.tokens_per_s / self.count


Sweep = Callable[[Profile, int, ControlCost], list[Trial]]


def measure(trial: Trial, library: Library, on_done: Callable[[], None] = lambda: None) -> Point:
    """Runs once; `on_done` hears of each measured request's end."""
    row, mesh = run(trial.profile, library, STRATEGY, trial.load, trial.shape, on_done)
    schedulers = [cell.scheduling for cell in mesh.cells]
    fusions = [cell.fusing for cell in mesh.cells]
    fullest = max(mesh.cells, key=lambda cell: cell.scheduler.live_count)
    held_kb = held_bytes(fullest.scheduler, (Alarms,)) / 1024
    busy_s = [peer.device.busy_s() for peer in mesh.drafters.values()]
    return Point(
        trial.series,
        trial.count,
        row.tokens_per_s,
        row.latency_ms,
        row.first_token_p95_ms,
        row.acceptance_length,
        row.verifier_busy,
        row.drafter_busy,
        max(busy_s) / mesh.clock.now,
        sum(seconds > 0.0 for seconds in busy_s),
        max(control.busy_s for control in (*schedulers, *fusions)) / mesh.clock.now,
        fullest.scheduler.live_count,
        held_kb,
        held_bytes(fullest.scheduler) / 1024 - held_kb,
        held_bytes(fullest.fusion) / 1024,
        _us(schedulers, mesh.token_count),
        _us(fusions, mesh.token_count),
        _us(schedulers, max(1.0, mesh.token_count / row.acceptance_length)),
    )


def drafters(profile: Profile, _request_count: int, _cost: ControlCost) -> list[Trial]:
    """More and more replicas of the drafters for a fixed number of verifiers, each with its scheduler: all for all, or
    each scheduler with drafters of its own."""
    load = closed_load(CELLS * CLIENTS, CELLS * CLIENTS, TOKENS)
    trials = []
    for count in DRAFTER_COUNTS:
        trials.append(Trial("shared", count, profile, load, Shape(CELLS, count)))
        if count >= CELLS * len(profile.drafters):
            trials.append(Trial("own", count, profile, load, Shape(CELLS, count, shared_drafters=False)))
    return trials


def verifiers(profile: Profile, _request_count: int, cost: ControlCost) -> list[Trial]:
    """More and more verifiers, with a scheduler each or all at one; drafters in proportion, or a fixed number."""
    trials = []
    for count in VERIFIER_COUNTS:
        load = closed_load(count * CLIENTS, count * CLIENTS, TOKENS)
        enough = DRAFTERS_EACH * count
        wide = replace(profile, verifier_count=count)
        one = Shape(1, enough, live_max=count * CLIENTS, control=cost)
        trials += [
            Trial("a scheduler each, own drafters", count, profile, load, Shape(count, enough, shared_drafters=False)),
            Trial("a scheduler each, shared drafters", count, profile, load, Shape(count, enough)),
            Trial(f"a scheduler each, {DRAFTERS_FIXED} drafters", count, profile, load, Shape(count, DRAFTERS_FIXED)),
            Trial("one scheduler", count, wide, load, one),
        ]
    return trials


def live(profile: Profile, _request_count: int, _cost: ControlCost) -> list[Trial]:
    """More and more requests at a time at one scheduler with one verifier: it takes all, or so many and no more."""
    trials = []
    for count in LIVE_COUNTS:
        load = closed_load(count, max(REQUESTS_MIN, count), TOKENS)
        trials.append(Trial("all taken", count, profile, load, _crowded(count)))
        if count >= LIVE_BOUND:
            trials.append(Trial(f"{LIVE_BOUND} taken", count, profile, load, _crowded(LIVE_BOUND)))
    return trials


def requests(profile: Profile, request_count: int, _cost: ControlCost) -> list[Trial]:
    """More and more requests in all, one after the other from as many clients; at most `request_count`."""
    shape = Shape(CELLS, CELLS * DRAFTERS_EACH)
    return [
        Trial("in all", count, profile, closed_load(CELLS * CLIENTS, count, TOKENS_SHORT), shape)
        for count in REQUEST_COUNTS
        if count <= request_count
    ]


SWEEPS: dict[str, Sweep] = {"drafters": drafters, "verifiers": verifiers, "live": live, "requests": requests}


def control_cost(profile: Profile, library: Library) -> ControlCost:
    """What scheduler and fusion compute for, per message and per session in it, measured on this machine."""
    few, many = (_controlled(profile, library, count) for count in (4, 64))
    scheduler = _line(few.cells[0].scheduling, many.cells[0].scheduling)
    fusion = _line(few.cells[0].fusing, many.cells[0].fusing)
    return ControlCost(*scheduler, *fusion)


def _controlled(profile: Profile, library: Library, count: int) -> Mesh:
    load = closed_load(count, max(REQUESTS_MIN, 2 * count), TOKENS)
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
