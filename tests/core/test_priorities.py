"""Requests of higher priority are verified first, whatever their strategy; others wait a bounded number of batches."""

from __future__ import annotations

import pytest

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.core.strategy import PRESETS

ROWS = 8  # one prompt fills a batch
PASSED_OVER_MAX = 5
STRATEGIES = [*sorted(PRESETS.keys() - {"dsi"}), "dsi:verifiers=1"]


class Queue:
    """A scheduler whose verifier reads one prompt at a time; every request ends with its first token."""

    def __init__(self, strategy: str) -> None:
        self.order: list[str] = []
        self._strategy = strategy
        self._now = 1.0
        self._batch: ev.SendBatch | None = None
        bounds = SchedulerConfig(prefill_chunk=ROWS, batch_rows_max=ROWS, passed_over_max=PASSED_OVER_MAX)
        self._scheduler = Scheduler(bounds)
        self._tell(ev.VerifierUp(ev.VerifierFacts("v")))

    def ask(self, name: str, priority: int, strategy: str = "") -> None:
        strategy = strategy or self._strategy
        admission = ev.Admission(name, 1, "g", tuple(range(ROWS)), ROWS, 1, strategy=strategy, priority=priority)
        self._tell(ev.RequestCame(admission))

    def judge(self) -> bool:
        """Judges the batch that is at the verifier; False where there is none."""
        batch, self._batch = self._batch, None
        if batch is None:
            return False
        for item in batch.items:
            word = ev.SessionVerdict(item.session_id, (7,), (), ROWS)
            self._tell(ev.VerdictCame(batch.batch_id, word))
        self._tell(ev.BatchDone(batch.batch_id))
        return True

    def _tell(self, event: ev.Event) -> None:
        self._now += 0.01
        for command in self._scheduler.handle(event, self._now):
            if isinstance(command, ev.SendBatch):
                assert self._batch is None
                self._batch = command
            elif isinstance(command, ev.Progress) and command.finish:
                self.order.append(command.request_id)


@pytest.fixture(params=STRATEGIES)
def queue(request: pytest.FixtureRequest) -> Queue:
    queue = Queue(request.param)
    queue.ask("first", 0)  # is at the verifier while the others come
    return queue


def test_the_higher_one_overtakes_those_that_came_before_it(queue: Queue) -> None:
    for name, priority in (("a", 0), ("b", -1), ("c", 0), ("urgent", 10), ("d", 0)):
        queue.ask(name, priority)
    while queue.judge():
        pass
    assert queue.order == ["first", "urgent", "a", "c", "d", "b"]


def test_one_that_is_overtaken_waits_for_a_bounded_number_of_batches(queue: Queue) -> None:
    queue.ask("patient", 0)
    for number in range(10):
        queue.ask(f"urgent {number}", 10)
        queue.judge()
    while queue.judge():
        pass
    assert queue.order.index("patient") <= PASSED_OVER_MAX + 1
    assert queue.order.index("patient") > 1, "it was overtaken"


@pytest.mark.parametrize(
    ("strategy", "other"), [("pipeinfer", "plain"), ("plain", "pipeinfer"), ("pipeinfer", "cosine")]
)
def test_it_holds_between_streamed_requests_and_those_that_take_rounds(strategy: str, other: str) -> None:
    queue = Queue(strategy)
    queue.ask("first", 0)
    for name in "abc":
        queue.ask(name, 0)
    queue.ask("urgent", 10, other)
    while queue.judge():
        pass
    assert queue.order == ["first", "urgent", "a", "b", "c"]


@pytest.mark.parametrize(
    ("strategy", "other"), [("pipeinfer", "plain"), ("plain", "pipeinfer"), ("pipeinfer", "cosine")]
)
def test_neither_kind_waits_for_ever_for_the_other(strategy: str, other: str) -> None:
    queue = Queue(strategy)
    for name in "pq":
        queue.ask(name, 0)
    queue.ask("patient", 0, other)
    for number in range(10):
        queue.ask(f"later {number}", 0)
        queue.judge()
    while queue.judge():
        pass
    assert queue.order.index("patient") <= PASSED_OVER_MAX + 1
