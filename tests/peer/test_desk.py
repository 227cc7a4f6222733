"""The desk: of cancelled work what waits is dropped, what runs is given up, what others wait for goes on; a desk that
drains answers what it has, and one whose engine fails at a pass works on.
"""

from __future__ import annotations

import asyncio

import pytest
from desk_bench import DEADLINE_S, Bench, settled, work, working

from cosine.core.errors import Full
from cosine.core.plan import DraftItem
from cosine.engine.verifying import Status, VerifyItem
from cosine.peer.desk import Cancelling, Closing, Work


async def test_work_that_waits_is_dropped_and_answered_at_once() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        stream.on_message(work(1, "a"))
        await bench.entered()
        stream.on_message(work(2, "b", "c"))
        stream.on_message(Cancelling((2,)))
        assert await answers.next() == (2, [Status.CANCELLED, Status.CANCELLED])
        assert bench.seen == [(2, 0.0)]
        bench.go_on()
        assert await answers.next() == (1, [Status.OK])
        assert bench.engine.passes == [["a"]]


async def test_dropped_work_gives_its_credit_back() -> None:
    async with working() as bench:
        stream, answers = bench.stream(credit_count=2)
        stream.on_message(work(1, "a"))
        await bench.entered()
        for work_id in (2, 3, 4):
            stream.on_message(work(work_id, "b"))
            stream.on_message(Cancelling((work_id,)))
            assert await answers.next() == (work_id, [Status.CANCELLED])
        stream.on_message(work(5, "b"))
        with pytest.raises(Full):
            stream.on_message(work(6, "b"))
        bench.go_on(2)


async def test_a_pass_stops_once_all_that_runs_in_it_is_cancelled_and_the_session_goes_on_from_its_base() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        stream.on_message(work(1, "a"))
        bench.go_on()
        assert await answers.next() == (1, [Status.OK])
        await bench.entered()
        stream.on_message(Work(2, (VerifyItem("a", 2, (7, 8)),)))
        await bench.entered()
        stream.on_message(Cancelling((2,)))
        stream.on_message(Work(3, (VerifyItem("a", 2, (9,)),)))
        bench.go_on(2)
        assert await answers.next() == (2, [Status.CANCELLED])
        assert await answers.next() == (3, [Status.OK])
        assert list(bench.engine.tokens("a")) == [1, 2, 9]


async def test_a_pass_that_somebody_else_waits_for_runs_to_its_end() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        other, others = bench.stream()
        stream.on_message(work(1, "a"))
        other.on_message(work(1, "b"))
        await bench.entered()
        stream.on_message(Cancelling((1,)))
        bench.go_on()
        assert await answers.next() == (1, [Status.OK])
        assert await others.next() == (1, [Status.OK])
        assert bench.engine.passes == [["a", "b"]]


async def test_work_of_another_stream_with_the_same_id_is_left_alone() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        other, others = bench.stream()
        stream.on_message(work(1, "a"))
        await bench.entered()
        stream.on_message(work(2, "b"))
        other.on_message(Cancelling((1, 2)))
        bench.go_on(2)
        assert await answers.next() == (1, [Status.OK])
        assert await answers.next() == (2, [Status.OK])
        assert others.empty()


async def test_cancelling_what_is_done_or_unknown_changes_nothing() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        stream.on_message(work(1, "a"))
        bench.go_on(2)
        assert await answers.next() == (1, [Status.OK])
        stream.on_message(Cancelling((1, 99)))
        stream.on_message(Work(2, (VerifyItem("a", 2, (9,)),)))
        assert await answers.next() == (2, [Status.OK])


async def test_closings_between_dropped_work_stay() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        stream.on_message(work(1, "a"))
        await bench.entered()
        stream.on_message(work(2, "b"))
        stream.on_message(Closing(("a",)))
        stream.on_message(Cancelling((1, 2)))
        bench.go_on()
        assert await answers.next() == (2, [Status.CANCELLED])
        assert await answers.next() == (1, [Status.CANCELLED])
        stream.on_message(Work(3, (VerifyItem("a", 1, (1,)),)))
        assert await answers.next() == (3, [Status.CACHE_MISS])


async def drained(draining: asyncio.Task[None]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await draining


async def test_a_desk_that_drains_answers_what_runs_and_what_waits_and_takes_nothing_new() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        other, others = bench.stream()
        stream.on_message(work(1, "a"))
        await bench.entered()
        stream.on_message(work(2, "a"))
        other.on_message(work(1, "b"))
        draining = asyncio.create_task(bench.desk.drain())
        await settled()
        stream.on_message(work(3, "c"))
        bench.go_on()
        assert await answers.next() == (1, [Status.OK])
        assert not draining.done()
        bench.go_on()
        assert await answers.next() == (2, [Status.OK])
        assert await others.next() == (1, [Status.OK])
        await drained(draining)
        assert bench.engine.passes == [["a"], ["a", "b"]]
        assert answers.empty()


async def test_draining_waits_until_the_answers_are_with_the_transport() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        answers.with_transport.clear()
        stream.on_message(work(1, "a"))
        bench.go_on()
        await answers.next()
        draining = asyncio.create_task(bench.desk.drain())
        await settled()
        assert not draining.done()
        answers.with_transport.set()
        await drained(draining)


async def test_draining_waits_for_no_stream_that_has_ended() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        answers.with_transport.clear()
        stream.on_message(work(1, "a"))
        await bench.entered()
        draining = asyncio.create_task(bench.desk.drain())
        await settled()
        assert not draining.done()
        stream.on_closed()
        await drained(draining)
        bench.go_on()


async def test_an_idle_desk_is_drained_at_once() -> None:
    async with working() as bench:
        await drained(asyncio.create_task(bench.desk.drain()))


async def test_a_drafter_drops_cancelled_sessions_before_the_next_pass_and_grows_the_others() -> None:
    async with working(drafts=True) as bench:
        stream, answers = bench.stream()
        stream.on_message(Work(1, (DraftItem("a", 0, (1, 2), step_count=3),)))
        stream.on_message(Work(2, (DraftItem("b", 0, (1, 2), step_count=3),)))
        await bench.entered()
        stream.on_message(Cancelling((1,)))
        bench.go_on(3)
        async with asyncio.timeout(DEADLINE_S):
            (_, (stopped,)), (_, (whole,)) = await answers.get(), await answers.get()
        assert bench.engine.passes == [["a", "b"], ["b"], ["b"]]
        assert (stopped.status, len(stopped.tree)) == (Status.CANCELLED, 1)  # type: ignore[attr-defined]  # drafts have trees
        assert (whole.status, len(whole.tree)) == (Status.OK, 3)  # type: ignore[attr-defined]  # drafts have trees


async def test_a_drafter_that_serves_nobody_any_more_stops_at_once() -> None:
    async with working(drafts=True) as bench:
        stream, answers = bench.stream()
        stream.on_message(Work(1, (DraftItem("a", 0, (1, 2), step_count=5),)))
        await bench.entered()
        stream.on_message(Cancelling((1,)))
        bench.go_on()
        assert await answers.next() == (1, [Status.CANCELLED])
        assert len(bench.engine.passes) == 1


@pytest.mark.parametrize("kind", [VerifyItem, DraftItem])
async def test_a_pass_that_fails_is_answered_and_the_desk_works_on(kind: type[VerifyItem] | type[DraftItem]) -> None:
    async with working(drafts=kind is DraftItem) as bench:
        stream, answers = bench.stream()
        bench.go_on(4)
        stream.on_message(Work(1, (kind("a", 0, (1, 2)),)))
        assert await answers.next() == (1, [Status.OK])
        bench.engine.failures_left = 1
        stream.on_message(Work(2, (kind("a", 2, (3,)),)))
        async with asyncio.timeout(DEADLINE_S):
            _, (lost,) = await answers.get()
        assert (lost.status, lost.cached_length) == (Status.CACHE_MISS, 0)
        stream.on_message(Work(3, (kind("a", 0, (1, 2, 3)),)))
        assert await answers.next() == (3, [Status.OK])
        assert bench.desk.load == 1


async def test_what_a_failed_pass_is_to_blame_for_ends_with_the_session() -> None:
    async with working() as bench:
        stream, answers = bench.stream()
        for work_id, status in ((1, Status.CACHE_MISS), (2, Status.REFUSED), (3, Status.REFUSED)):
            bench.engine.failures_left = 1
            bench.go_on(2)
            stream.on_message(work(work_id, "a"))
            assert await answers.next() == (work_id, [status])
        bench.engine.failures_left = 0
        stream.on_message(Closing(("a",)))
        stream.on_message(work(4, "a"))
        assert await answers.next() == (4, [Status.OK])


async def test_a_desk_ends_with_an_engine_that_is_broken() -> None:
    bench = Bench(drafts=False)
    stream, answers = bench.stream()
    stream.on_message(work(1, "a"))
    bench.engine.failures_left = 2
    bench.go_on(2)
    with pytest.raises(RuntimeError, match="out of memory"):
        async with asyncio.timeout(DEADLINE_S):
            await bench.desk.work()
    assert answers.empty()
