"""Time of `core.Scheduler.handle` per event with many live requests, on a synthetic but complete run.

Every request drafts, is verified and commits, round after round; only the models are missing: trees and verdicts are
made up. `python -m bench.scheduler` prints microseconds per event.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.plan import DraftedTree
from cosine.core.scheduler import Scheduler
from cosine.core.tree import TokenTree

TREE_NODES = 12


@dataclass(slots=True)
class HandleTimes:
    """Microseconds per event: of all events, and of the slowest kind."""

    median_us: float
    mean_us: float
    worst_kind: str
    worst_kind_median_us: float


@dataclass(slots=True)
class Ring:
    """Answers every command of a scheduler with a made-up event, one at a time."""

    scheduler: Scheduler
    waiting: deque[ev.Event] = field(default_factory=deque)
    taken: dict[str, list[float]] = field(default_factory=dict)
    now: float = 0.0

    def feed(self, event: ev.Event) -> None:
        """One event, timed."""
        self.now += 0.0005
        start = time.perf_counter()
        commands = self.scheduler.handle(event, self.now)
        self.taken.setdefault(type(event).__name__, []).append((time.perf_counter() - start) * 1e6)
        for command in commands:
            if isinstance(command, ev.SendPlan):
                self.waiting += _trees(command)
            elif isinstance(command, ev.SendBatch):
                self.waiting += _verdicts(command)


def _tree() -> TokenTree:
    half = TREE_NODES // 2
    parents = (-1, *range(half - 1), *(node - 1 for node in range(half)))
    return TokenTree(tuple(range(1, TREE_NODES + 1)), parents, (0.8,) * half + (0.1,) * half, (1,) * half + (2,) * half)


TREE = _tree()


def _trees(command: ev.SendPlan) -> list[ev.Event]:
    drafted = [
        DraftedTree(item.session_id, item.base_length + len(item.token_ids), TREE, exchange_count=2)
        for item in command.plan.items
    ]
    round_id = command.plan.round_id
    return [*(ev.TreeCame(round_id, tree) for tree in drafted), ev.PlanDone(round_id)]


def _verdicts(command: ev.SendBatch) -> list[ev.Event]:
    verdicts = []
    for item in command.items:
        length = item.base_length + len(item.token_ids)
        nodes = tuple(range(min(3, len(item.tree))))
        tokens = () if item.prefill_only else (*(item.tree.token_ids[node] for node in nodes), 0)
        verdicts.append(ev.SessionVerdict(item.session_id, tokens, nodes, length + len(nodes)))
    batch_id = command.batch_id
    return [*(ev.VerdictCame(batch_id, verdict) for verdict in verdicts), ev.BatchDone(batch_id)]


def measure(live_count: int = 64, event_count: int = 20_000) -> HandleTimes:
    """Runs until `event_count` events are handled with `live_count` requests live throughout."""
    ring = Ring(Scheduler(SchedulerConfig(live_max=live_count, batch_rows_max=64)))
    ring.feed(ev.VerifierUp(ev.VerifierFacts("verifier", sessions_max=live_count)))
    ring.feed(ev.FusionUp("fusion"))
    ring.feed(ev.DraftersChanged("fusion", tuple(f"drafter-{index}" for index in range(5))))
    for index in range(live_count):
        ring.feed(ev.RequestCame(ev.Admission(f"request-{index}", 1, "gateway", (1, 2, 3), 3, 1_000_000)))
    ring.taken.clear()
    for _ in range(event_count):
        ring.feed(ring.waiting.popleft())
    return _summary(ring.taken)


def _summary(taken: dict[str, list[float]]) -> HandleTimes:
    every = [value for values in taken.values() for value in values]
    kind, values = max(taken.items(), key=lambda entry: statistics.median(entry[1]))
    return HandleTimes(statistics.median(every), statistics.fmean(every), kind, statistics.median(values))


if __name__ == "__main__":
    for count in (8, 64):
        print(count, "live:", measure(count))
