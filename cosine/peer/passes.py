"""Passes of the engine for whoever asks, and what becomes of those at which it raises.

Such a pass says nothing of whose fault it was. Its sessions are closed and answered CACHE_MISS, so that their senders
give the whole contexts again; each then runs alone until it has got as far as it was. One that fails once more is
REFUSED, again and again until it is closed, without being run.

An engine that cannot do one made-up token either is broken, and so is one at which `FAILURES_MAX` passes in a row fail:
then the error goes on, and ends the process for whoever started it to start it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from cosine.core.errors import Unavailable
from cosine.core.picking import RowRule
from cosine.core.sampling import GREEDY
from cosine.engine.base import Engine, Segment
from cosine.engine.verifying import SessionItem, Status
from cosine.rpc.errors import internal

FAILURES_MAX = 16
PROBE = Segment("", 0, (0,))


class Outcome(Protocol):
    """What a job has given for one item."""

    @property
    def status(self) -> Status: ...


Item = TypeVar("Item", bound=SessionItem)
Result = TypeVar("Result", bound=Outcome)
Compute = Callable[[Engine, Sequence[Item], Callable[[str], bool]], list[Result]]


class Passes(Generic[Item, Result]):
    """Belongs to the engine's thread. `compute` is one pass; `unable` makes the result of an item that it did not give:
    its status, and why."""

    def __init__(
        self, engine: Engine, compute: Compute[Item, Result], unable: Callable[[Item, Status, str], Result]
    ) -> None:
        self._engine = engine
        self._compute = compute
        self._unable = unable
        self._suspects: dict[str, int] = {}  # sessions of a pass that failed, and how far each was to get
        self._refused: dict[str, str] = {}
        self._failed_count = 0

    def run(self, items: Sequence[Item], unwanted: Callable[[str], bool]) -> list[Result]:
        """Results in order, from as few passes as may be. Sessions must differ. Raises where the engine is broken."""
        refused = [item for item in items if item.session_id in self._refused]
        found = {item.session_id: self._refusal(item) for item in refused}
        for part in self._parts([item for item in items if item.session_id not in found]):
            results = self._pass(part, unwanted)
            found.update((item.session_id, result) for item, result in zip(part, results, strict=True))
        return [found[item.session_id] for item in items]

    def close(self, session_ids: Iterable[str]) -> None:
        """Sessions are over."""
        ended = list(session_ids)
        self._forgive(ended)
        self._engine.close(ended)

    def failed(self, session_ids: Iterable[str]) -> None:
        """A pass with these sessions has failed. Raises where the engine is broken."""
        self._engine.close(session_ids)
        self._failed_count += 1
        if self._failed_count == FAILURES_MAX:
            raise Unavailable("ENGINE_BROKEN", f"the last {FAILURES_MAX} passes have failed, see the log; start again")
        self._engine.forward([PROBE]).picks([RowRule(GREEDY, len(PROBE.token_ids))])
        self._engine.close([PROBE.session_id])

    def _parts(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """One per pass: more sessions than slots would push one another out, and suspects run alone."""
        size = self._engine.limits.sessions_max
        fine = [item for item in items if item.session_id not in self._suspects]
        alone = [[item] for item in items if item.session_id in self._suspects]
        return [*(fine[start : start + size] for start in range(0, len(fine), size)), *alone]

    def _pass(self, items: Sequence[Item], unwanted: Callable[[str], bool]) -> list[Result]:
        try:
            results = self._compute(self._engine, items, unwanted)
        except Exception as error:  # the border
            reason = internal(error, "a pass of the engine").message
        else:
            self._note(items, results)
            return results
        self.failed([item.session_id for item in items])  # by now the error holds no memory of the pass any more
        return [self._blame(item, reason) for item in items]

    def _note(self, items: Sequence[Item], results: Sequence[Result]) -> None:
        done = [item for item, result in zip(items, results, strict=True) if result.status is Status.OK]
        if done:
            self._failed_count = 0
        self._forgive(item.session_id for item in done if _end(item) >= self._suspects.get(item.session_id, 0))

    def _blame(self, item: Item, reason: str) -> Result:
        """The answer to an item whose pass has failed."""
        if item.session_id in self._suspects:
            self._refused[item.session_id] = f"the model fails at this request: {reason}"
            return self._refusal(item)
        self._suspects[item.session_id] = _end(item)
        return self._unable(item, Status.CACHE_MISS, "")

    def _refusal(self, item: Item) -> Result:
        return self._unable(item, Status.REFUSED, self._refused[item.session_id])

    def _forgive(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._suspects.pop(session_id, None)
            self._refused.pop(session_id, None)


def _end(item: SessionItem) -> int:
    """How long the session is to be."""
    return item.base_length + len(item.token_ids)
