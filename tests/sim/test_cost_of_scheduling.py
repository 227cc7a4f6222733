"""What a scheduler does for a round grows no faster than in proportion to the requests it holds.

Counted in Python's own operations (bytecodes), which are the same on every machine, and not in seconds.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from cosine.core import events as ev
from cosine.core.scheduler import Scheduler
from cosine.sim.load import Source, closed_load
from cosine.sim.mesh import Mesh
from cosine.sim.peers import Shape
from tests.sim.parks import library, park

SLACK = 1.1


class Counter:
    """Counts the operations of `Scheduler.handle` and all it calls, and the verdicts it is told."""

    def __init__(self) -> None:
        self.operation_count = 0
        self.verdict_count = 0

    def counted(self, handle: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def call(scheduler: Scheduler, event: ev.Event, now: float) -> Any:
            self.verdict_count += isinstance(event, ev.VerdictCame)
            before = sys.gettrace()
            sys.settrace(self._trace)
            try:
                return handle(scheduler, event, now)
            finally:
                sys.settrace(before)

        return call

    def _trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.operation_count += event == "opcode"
        return self._trace


def operations_per_verdict(monkeypatch: pytest.MonkeyPatch, strategy: str, live_count: int) -> float:
    """Of a scheduler with so many requests, all the time."""
    mesh = Mesh(park(), library(), strategy, False, Shape(1, 5, live_max=live_count, verifier_sessions_max=live_count))
    source = Source(mesh, closed_load(live_count, live_count, 128))
    source.start()
    mesh.run(lambda: mesh.token_count >= 8 * live_count)
    counter = Counter()
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "handle", counter.counted(Scheduler.handle))
        mesh.run(lambda: counter.verdict_count >= 6 * live_count)
    return counter.operation_count / counter.verdict_count


@pytest.mark.parametrize("strategy", ["plain", "vanilla", "cosine", "spin"])
def test_a_rounds_operations_grow_no_faster_than_the_requests_in_it(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    few, many = (operations_per_verdict(monkeypatch, strategy, count) for count in (8, 64))
    assert few > 0
    assert many <= SLACK * few, (few, many)
