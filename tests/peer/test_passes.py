"""Passes at which the engine raises: nobody suffers for another's request, and an engine that is broken is given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import pytest

from cosine.core.errors import Unavailable
from cosine.engine.base import Engine, EngineLimits, Segment
from cosine.engine.toy import ToyEngine, ToyLogits
from cosine.engine.verifying import Status, Verdict, VerifyItem, verify
from cosine.peer.passes import FAILURES_MAX, PROBE, Passes

OK, MISS, REFUSED = Status.OK, Status.CACHE_MISS, Status.REFUSED
BAD = 13  # a token that the engine cannot bear


class Brittle(ToyEngine):
    """A toy that raises where a pass is more than it bears; passes are written down, but for those that probe it."""

    def __init__(self, bears: Callable[[Sequence[Segment]], bool]) -> None:
        super().__init__("toy:seed=1", "", EngineLimits(sessions_max=4))
        self.passes: list[list[str]] = []
        self.bears = bears

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> ToyLogits:
        if segments[0] is not PROBE:
            self.passes.append([segment.session_id for segment in segments])
        if not self.bears(segments):
            raise RuntimeError("out of memory")
        return super().forward(segments, stop)


class Bench:
    """Passes on a brittle engine."""

    def __init__(self, bears: Callable[[Sequence[Segment]], bool]) -> None:
        self.engine = Brittle(bears)
        self.passes = Passes(self.engine, compute, lambda item, *why: Verdict(item.session_id, why[0], reason=why[1]))

    def run(self, *items: VerifyItem) -> list[Status]:
        """The statuses of a run, whose passes are written down afresh."""
        self.engine.passes.clear()
        return [verdict.status for verdict in self.passes.run(items, lambda _: False)]


def compute(engine: Engine, items: Sequence[VerifyItem], _: Callable[[str], bool]) -> list[Verdict]:
    return verify(engine, items)


def without_bad(segments: Sequence[Segment]) -> bool:
    return all(BAD not in segment.token_ids for segment in segments)


def only_probes(segments: Sequence[Segment]) -> bool:
    return segments[0] is PROBE


def whole(session_id: str, *token_ids: int) -> VerifyItem:
    """A session's whole context."""
    return VerifyItem(session_id, 0, token_ids or (1, 2))


def test_sessions_of_a_pass_that_failed_are_closed_and_asked_for_anew() -> None:
    bench = Bench(without_bad)
    assert bench.run(whole("b")) == [OK]
    assert bench.run(whole("a", BAD), VerifyItem("b", 2, (3,))) == [MISS, MISS]
    assert [list(bench.engine.tokens(name)) for name in ("a", "b")] == [[], []]


def test_what_fails_once_more_is_refused_and_the_others_are_judged() -> None:
    bench = Bench(without_bad)
    both = whole("a", BAD), whole("b")
    assert bench.run(*both) == [MISS, MISS]
    assert bench.run(*both) == [REFUSED, OK]
    assert bench.engine.passes == [["a"], ["b"]], "each alone"
    (verdict,) = bench.passes.run([whole("a", BAD)], lambda _: False)
    assert verdict.reason.startswith("the model fails at this request: internal error ")


def test_a_refused_session_is_not_run_again_until_it_is_closed() -> None:
    bench = Bench(without_bad)
    for _ in range(2):
        bench.run(whole("a", BAD))
    assert bench.run(whole("a", BAD), whole("b"), whole("c")) == [REFUSED, OK, OK]
    assert bench.engine.passes == [["b", "c"]]
    bench.passes.close(["a"])
    assert bench.run(whole("a"), whole("b")) == [OK, OK]
    assert bench.engine.passes == [["a", "b"]]


def test_sessions_that_were_only_too_many_together_share_passes_again() -> None:
    bench = Bench(lambda segments: len(segments) < 3)
    all_three = whole("a"), whole("b"), whole("c")
    assert bench.run(*all_three) == [MISS] * 3
    assert bench.run(*all_three) == [OK] * 3
    assert bench.engine.passes == [["a"], ["b"], ["c"]]
    assert bench.run(VerifyItem("a", 2, (3,)), VerifyItem("b", 2, (3,))) == [OK] * 2
    assert bench.engine.passes == [["a", "b"]]


def test_a_session_runs_alone_until_it_has_got_as_far_as_it_was() -> None:
    bench = Bench(without_bad)
    bench.run(whole("a", 1, 2, BAD))
    assert bench.run(whole("a", 1, 2), whole("b")) == [OK, OK]
    assert bench.run(VerifyItem("a", 2, (BAD,)), VerifyItem("b", 2, (3,))) == [REFUSED, OK], "b has lost nothing"


def test_an_answer_without_a_pass_clears_nobody() -> None:
    bench = Bench(without_bad)
    bench.run(whole("a", 1, BAD))
    assert bench.run(VerifyItem("a", 5, (3,))) == [MISS]
    assert bench.run(whole("a", 1, BAD), whole("b")) == [REFUSED, OK]


def test_an_engine_that_cannot_do_a_single_token_is_broken_and_nobody_is_refused() -> None:
    bench = Bench(lambda _: False)
    with pytest.raises(RuntimeError, match="out of memory"):
        bench.run(whole("a"), whole("b"))


def test_an_engine_at_which_pass_after_pass_fails_is_broken() -> None:
    bench = Bench(only_probes)
    for number in range(FAILURES_MAX - 1):
        assert bench.run(whole(str(number))) == [MISS]
    with pytest.raises(Unavailable) as caught:
        bench.run(whole("last"))
    assert caught.value.reason == "ENGINE_BROKEN"


def test_a_pass_that_goes_well_in_between_absolves_the_engine() -> None:
    bench = Bench(without_bad)
    for number in range(FAILURES_MAX):
        assert bench.run(whole(str(number), BAD)) == [MISS]
        assert bench.run(whole("fine")) == [OK]


def test_a_failure_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        Bench(without_bad).run(whole("a", BAD), whole("b"))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "out of memory"


def test_more_sessions_than_slots_are_more_than_one_pass_and_answered_in_order() -> None:
    bench = Bench(lambda _: True)
    names = [str(number) for number in range(6)]
    verdicts = bench.passes.run([whole(name) for name in names], lambda _: False)
    assert [verdict.session_id for verdict in verdicts] == names
    assert bench.engine.passes == [names[:4], names[4:]]
