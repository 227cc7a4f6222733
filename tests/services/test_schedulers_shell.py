"""What the scheduler's shell tells its machine, and what it shows of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from prometheus_client import Counter, Gauge

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.rpc import metrics
from cosine.rpc.hello import Identity
from cosine.store.admission import AdmissionReader
from cosine.store.connection import Store
from cosine.store.registry import DRAINING, LOST, SERVING, PeerRecord
from services.scheduler.service import SchedulerServicer

NOWHERE = "redis://127.0.0.1:1"


def shell() -> tuple[SchedulerServicer, Scheduler]:
    """A scheduler that reaches no store; its machine knows one verifier of eight sessions."""
    core = Scheduler(SchedulerConfig())
    core.handle(ev.VerifierUp(ev.VerifierFacts("v", sessions_max=8)), 1.0)
    reader = AdmissionReader(Store(NOWHERE, "mesh", "test"), "scheduler-1")
    return SchedulerServicer(Identity("scheduler", "scheduler-1"), core, reader), core


def record(peer_id: str, state: str = SERVING) -> PeerRecord:
    return PeerRecord("scheduler", peer_id, f"host:{peer_id}", 1, state=state)


def count(shown: Counter | Gauge) -> float:
    (metric,) = shown.collect()
    return float(metric.samples[0].value)


async def test_answers_that_nobody_waits_for_are_counted() -> None:
    servicer, _ = shell()
    before = count(metrics.SCHEDULER_STALE)
    servicer.handle(ev.VerdictCame(99, ev.SessionVerdict("nobody")), ev.BatchDone(99))
    assert count(metrics.SCHEDULER_STALE) - before == 2


async def test_it_shows_how_many_kinds_of_prompts_it_tells_apart() -> None:
    _, core = shell()
    assert count(metrics.SCHEDULER_KINDS) == 0
    core.knowledge.priors(tuple(range(50)))
    core.knowledge.priors(tuple(range(200, 250)))
    assert count(metrics.SCHEDULER_KINDS) == core.knowledge.cluster_count == 2


async def test_it_shares_verifiers_with_the_schedulers_that_live_itself_included() -> None:
    servicer, core = shell()
    shares: list[int] = []

    async def views() -> AsyncIterator[tuple[PeerRecord, ...]]:
        yield ()
        shares.append(core.seats["v"].share)
        yield record("scheduler-1"), record("scheduler-2", DRAINING)
        shares.append(core.seats["v"].share)
        yield record("scheduler-1"), record("scheduler-2", LOST), record("scheduler-3"), record("scheduler-4", LOST)
        shares.append(core.seats["v"].share)
        yield record("scheduler-2"), record("scheduler-3"), record("scheduler-4")
        shares.append(core.seats["v"].share)

    await servicer.share(views())
    assert shares == [8, 4, 4, 2]
