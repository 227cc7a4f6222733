"""What nobody waits for any more goes with its stream, and a desk whose engine hangs ends."""

from __future__ import annotations

import asyncio

import pytest
from desk_bench import DEADLINE_S, Bench, settled, work, working

from cosine.core.errors import Unavailable
from cosine.core.plan import DraftItem
from cosine.engine.verifying import Status
from cosine.peer.desk import FIRST_PASS_FACTOR, Work


async def test_what_waits_for_a_stream_that_has_ended_is_dropped() -> None:
    async with working() as bench:
        stream, _ = bench.stream()
        other, others = bench.stream()
        stream.on_message(work(1, "a"))
        await bench.entered()
        stream.on_message(work(2, "a"))
        other.on_message(work(2, "c"))
        stream.on_message(work(3, "b"))
        stream.on_closed()
        bench.go_on(4)
        assert await others.next() == (2, [Status.OK])
        assert bench.engine.passes == [["a"], ["c"]]
        assert bench.seen[:2] == [(1, 0.0), (1, 0.0)], "counted as dropped"


async def test_a_drafter_whose_caller_has_left_stops_at_once() -> None:
    async with working(drafts=True) as bench:
        stream, _ = bench.stream()
        other, others = bench.stream()
        stream.on_message(Work(1, (DraftItem("a", 0, (1, 2), step_count=5),)))
        await bench.entered()
        other.on_message(Work(1, (DraftItem("b", 0, (1, 2), step_count=1),)))
        stream.on_closed()
        bench.go_on(6)
        assert await others.next() == (1, [Status.OK])
        assert bench.engine.passes == [["a"], ["b"]]


class Later:
    """The running loop's clock, which a test puts forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.ahead_s, time = 0.0, loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead_s)


async def test_a_desk_ends_with_an_engine_that_hangs_and_gives_the_first_pass_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later, bench = Later(monkeypatch), Bench(drafts=False)
    running = asyncio.create_task(bench.desk.work())
    stream, answers = bench.stream()
    stream.on_message(work(1, "a"))
    await bench.entered()
    later.ahead_s += bench.desk.pass_timeout_s * (FIRST_PASS_FACTOR - 1)
    await settled()
    bench.go_on()
    assert await answers.next() == (1, [Status.OK])
    stream.on_message(work(2, "a"))
    await bench.entered()
    await settled()
    assert not running.done()
    later.ahead_s += bench.desk.pass_timeout_s
    with pytest.raises(Unavailable) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await running
    bench.go_on()  # the interpreter waits for the thread
    assert caught.value.reason == "ENGINE_HANGS"
    assert answers.empty()
