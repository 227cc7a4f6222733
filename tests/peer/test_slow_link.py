"""The slow link: answers come as late as the network would bring them, in order, while the engine works on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cosine.core.errors import BadRequest
from cosine.core.plan import DraftItem
from cosine.engine.base import EngineLimits
from cosine.engine.drafting import DraftResult, cancelled, draft
from cosine.engine.toy import ToyEngine
from cosine.peer import desk as desks
from cosine.peer.desk import Codec, Desk, Work
from cosine.peer.slow_link import LinkPace, SlowLink, parse_link
from cosine.rpc.hello import Bounds
from cosine.v1 import drafter_pb2 as pb

MBIT_BYTES = 125_000  # a second of one megabit per second


class Timer:
    """One call that waits."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """As much of an event loop as a link needs; time goes where it is put."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    def run_until(self, now: float) -> None:
        """Fires what is due, earliest first."""
        self.now = now
        for timer in sorted(self.timers, key=lambda timer: timer.when):
            if timer.when <= now and not timer.is_cancelled:
                self.timers.remove(timer)
                timer.call()


def link(loop: Loop, round_trip_ms: float, mbps: float) -> SlowLink:
    return SlowLink(LinkPace(round_trip_ms, mbps), loop)  # type: ignore[arg-type]  # stands in for it


def test_a_message_takes_the_round_trip_and_its_bytes() -> None:
    loop, arrived = Loop(), list[str]()
    link(loop, 500.0, 1.0).deliver(MBIT_BYTES // 4, lambda: arrived.append("a"))
    assert loop.timers[0].when == pytest.approx(100.75)
    loop.run_until(100.74)
    assert not arrived
    loop.run_until(100.76)
    assert arrived == ["a"]


def test_messages_wait_for_the_bytes_before_them_but_not_for_round_trips() -> None:
    loop = Loop()
    slow = link(loop, 500.0, 1.0)
    for _ in range(3):
        slow.deliver(MBIT_BYTES, lambda: None)
    assert [timer.when for timer in loop.timers] == pytest.approx([101.5, 102.5, 103.5])


def test_order_is_kept_where_size_costs_nothing() -> None:
    loop, arrived = Loop(), list[int]()
    slow = link(loop, 10.0, float("inf"))
    for number in range(50):
        slow.deliver(50 - number, lambda number=number: arrived.append(number))  # type: ignore[misc]  # mypy infers no lambda with a default
    assert len({timer.when for timer in loop.timers}) == 50
    loop.run_until(200.0)
    assert arrived == list(range(50))


def test_what_is_under_way_when_a_stream_ends_is_lost() -> None:
    loop, arrived = Loop(), list[str]()
    slow = link(loop, 10.0, 1.0)
    slow.deliver(1, lambda: arrived.append("a"))
    slow.close()
    loop.run_until(200.0)
    assert not arrived


@pytest.mark.parametrize(("text", "pace"), [("0.4", LinkPace(0.4)), ("0,100", LinkPace(0.0, 100.0))])
def test_a_link_is_read_from_its_text(text: str, pace: LinkPace) -> None:
    assert parse_link(text) == pace


@pytest.mark.parametrize("text", ["", "fast", "-1", "1,0", "1,-5", "1,2,3", "nan", "1,inf"])
def test_a_text_that_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="ROUND_TRIP_MS"):
        parse_link(text)


class Held:
    """A link on which everything stays under way until it is let go."""

    def __init__(self, _pace: LinkPace) -> None:
        self.under_way: list[tuple[int, Callable[[], None]]] = []

    def deliver(self, byte_count: int, send: Callable[[], None]) -> None:
        self.under_way.append((byte_count, send))

    def close(self) -> None:
        self.under_way.clear()


class Sent(list[Any]):
    """An outbox that keeps what it is given."""

    def send(self, message: Any) -> None:
        self.append(message)


async def test_the_engine_works_on_while_answers_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "SlowLink", Held)
    computed: list[str] = []
    third = asyncio.Event()

    def observe(items: Sequence[DraftItem], _results: Sequence[DraftResult], _seconds: float) -> None:
        computed.extend(item.session_id for item in items)
        if len(computed) == 3:
            third.set()

    def parse(message: pb.DraftRequest) -> Work[DraftItem]:
        items = (DraftItem(item.session_id, 0, tuple(item.append_token_ids)) for item in message.step.items)
        return Work(message.step.step_id, tuple(items))

    def answer(step_id: int, _results: Sequence[DraftResult], _us: int) -> pb.DraftResponse:
        return pb.DraftResponse(candidates=pb.DraftCandidates(step_id=step_id))

    desk = Desk(ToyEngine("toy:seed=1", "", EngineLimits()), draft, Codec(parse, answer, cancelled), observe)
    desk.link = LinkPace(1.0)
    outbox = Sent()
    stream = desk.open_stream(outbox, Bounds(credits=3))  # type: ignore[arg-type]  # stands in for it
    work = asyncio.create_task(desk.work())
    requests = [
        pb.DraftRequest(step=pb.DraftStep(step_id=number, items=[pb.DraftItem(session_id="s", append_token_ids=[1])]))
        for number in (1, 2, 3)
    ]
    for request in requests:
        stream.on_message(request)
    async with asyncio.timeout(10):
        await third.wait()
    work.cancel()
    assert computed == ["s", "s", "s"]
    assert outbox == []
    held = stream._link
    assert isinstance(held, Held)
    answers = [answer(number, (), 0) for number in (1, 2, 3)]
    sizes = [asked.ByteSize() + told.ByteSize() for asked, told in zip(requests, answers, strict=True)]
    assert [size for size, _ in held.under_way] == sizes
    for _, send in held.under_way:
        send()
    assert [message.candidates.step_id for message in outbox] == [1, 2, 3]
