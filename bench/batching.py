"""Time of the batch scheduler's decisions, and what they are worth on made-up load.

`python -m bench.batching` prints milliseconds per decision, and then the tokens per second of a closed loop whose
passes take as long as a line says: everybody in order of arrival, the same in groups of similar length, or by cost at
several weights. Drafts and verdicts are made up, the clock is virtual, the decisions are the mesh's own.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cosine.core.batching import WEIGHT, Candidate, Caps, LineTimes, choose
from cosine.core.decomposition import decompose

REPEATS = 200
PASSES = 600
LIVE_COUNT = 48
DRAFT_MS = 20.0
CAPS = Caps(row_count_max=512, token_count_max=1 << 20, latency_ms_max=math.inf, waited_count_max=3)
ROWS_ONLY = LineTimes(base_ms=8.0, row_ms=0.3)
PADDED = LineTimes(base_ms=20.0, row_ms=0.05, kilotoken_ms=0.2)

Dice = np.random.Generator
Rule = Callable[[Sequence[Candidate]], list[list[int]]]


@dataclass(slots=True)
class DecisionTimes:
    """Milliseconds per decision among everybody who waits."""

    choose_median_ms: float
    choose_p95_ms: float
    decompose_median_ms: float


@dataclass(slots=True)
class Served:
    """A closed loop: expected tokens per second; milliseconds from ready to verdict, mean and 95th percentile."""

    tokens_per_s: float
    wait_mean_ms: float
    wait_p95_ms: float


def measure(count: int = 256, times: LineTimes = PADDED, priority_count: int = 1) -> DecisionTimes:
    """Decisions among `count` requests of mixed lengths and rows; every twentieth reads a part of its prompt."""
    dice = np.random.default_rng(1)
    pools = [
        [
            _drafted(dice, int(dice.integers(50, 4000)))._replace(priority=int(dice.integers(priority_count)))
            for _ in range(count)
        ]
        for _ in range(REPEATS)
    ]
    choosing = [_taken_ms(lambda pool: choose(pool, times, CAPS), pool) for pool in pools]
    decomposing = [_taken_ms(lambda pool: decompose(pool, times), pool) for pool in pools]
    tail_ms = float(np.percentile(choosing, 95))
    return DecisionTimes(statistics.median(choosing), tail_ms, statistics.median(decomposing))


def serve(rule: Rule, times: LineTimes, lengths: Sequence[int]) -> Served:
    """A request per length, each drafting again once it has its verdict. A rule returns passes to run in sequence."""
    dice = np.random.default_rng(2)
    now_ms = tokens = 0.0
    ready_ms = [0.0] * len(lengths)
    candidates = [_drafted(dice, length) for length in lengths]
    waits_ms: list[float] = []
    for _ in range(PASSES):
        now_ms = max(now_ms, min(ready_ms))
        waiting = sorted((place for place, at in enumerate(ready_ms) if at <= now_ms), key=ready_ms.__getitem__)
        groups = rule([candidates[place] for place in waiting])
        for group in groups:
            served = [waiting[index] for index in group]
            now_ms += _pass_ms([candidates[place] for place in served], times)
            for place in served:
                tokens += candidates[place].expected_count
                waits_ms.append(now_ms - ready_ms[place])
                ready_ms[place] = now_ms + DRAFT_MS * dice.uniform(0.8, 1.2)
                candidates[place] = _drafted(dice, lengths[place])
        for index in set(range(len(waiting))) - {index for group in groups for index in group}:
            place = waiting[index]
            candidates[place] = candidates[place]._replace(waited_count=candidates[place].waited_count + 1)
    return Served(1000 * tokens / now_ms, statistics.fmean(waits_ms), float(np.percentile(waits_ms, 95)))


def _drafted(dice: Dice, length: int) -> Candidate:
    """A request with a fresh tree, or with a part of its prompt."""
    if dice.random() < 0.05:
        return Candidate(length, 256, 1.0)
    row_count = int(dice.integers(1, 24))
    return Candidate(length, row_count, 1.0 + min(row_count - 1, 6) * dice.random())


def _pass_ms(group: Sequence[Candidate], times: LineTimes) -> float:
    longest = max(candidate.length for candidate in group)
    return times.verify_ms(len(group), longest, sum(candidate.row_count for candidate in group))


def _taken_ms(decide: Callable[[Sequence[Candidate]], object], pool: Sequence[Candidate]) -> float:
    start = time.perf_counter()
    decide(pool)
    return (time.perf_counter() - start) * 1000


def _in_order(waiting: Sequence[Candidate]) -> list[int]:
    """Everybody from the first on, up to the cap on rows."""
    taken: list[int] = []
    rows = 0
    for index, candidate in enumerate(waiting):
        rows += candidate.row_count
        if taken and rows > CAPS.row_count_max:
            break
        taken.append(index)
    return taken


def _rules(times: LineTimes) -> dict[str, Rule]:
    def decomposed(waiting: Sequence[Candidate]) -> list[list[int]]:
        taken = _in_order(waiting)
        groups = decompose([waiting[index] for index in taken], times)
        return [[taken[member] for member in group] for group in groups]

    def by_cost(weight: float) -> Rule:
        return lambda waiting: [choose(waiting, times, CAPS, weight)]

    weights = {f"optimised, weight {weight:g}": by_cost(weight) for weight in (0.0, 0.5, WEIGHT, 1.0)}
    return {"continuous": lambda waiting: [_in_order(waiting)], "decomposed": decomposed, **weights}


def _populations() -> dict[str, list[int]]:
    dice = np.random.default_rng(3)
    short, long = dice.integers(100, 400, LIVE_COUNT), dice.integers(3000, 8000, LIVE_COUNT)
    return {
        "even": dice.integers(50, 4000, LIVE_COUNT).tolist(),
        "two kinds": np.where(dice.random(LIVE_COUNT) < 0.7, short, long).tolist(),
        "two outliers": [*short[2:].tolist(), 8000, 9000],
    }


def main() -> None:
    """Prints."""
    kinds = (("rows", ROWS_ONLY), ("padded", PADDED))
    print("milliseconds per decision: choose, median and 95th percentile; decompose, median")
    for count, priority_count in ((8, 1), (64, 1), (256, 1), (256, 3)):
        for kind, times in kinds:
            taken = measure(count, times, priority_count)
            figures = f"{taken.choose_median_ms:.2f} {taken.choose_p95_ms:.2f}; {taken.decompose_median_ms:.2f}"
            print(f"  {count} waiting, priorities {priority_count}, passes {kind}: {figures}")
    print("closed loop: tokens/s; wait in ms, mean and 95th percentile")
    for name, lengths in _populations().items():
        for kind, times in kinds:
            for label, rule in _rules(times).items():
                served = serve(rule, times, lengths)
                figures = f"{served.tokens_per_s:.0f}; {served.wait_mean_ms:.0f} {served.wait_p95_ms:.0f}"
                print(f"  lengths {name}, passes {kind}, {label}: {figures}")


if __name__ == "__main__":
    main()
