"""Links to peers: who serves is dialled, of who drains the owner is told while the link stands, who is lost goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cosine.peer import links as module
from cosine.peer.links import Links
from cosine.rpc.hello import Identity
from cosine.store.registry import DRAINING, LOST, SERVING, PeerRecord
from cosine.v1.drafter_pb2 import DraftRequest

RECORD = PeerRecord("drafter", "d", "127.0.0.1:1", 7)
DEADLINE_S = 10.0
BOUND = 4096


class Link:
    """A link whose ups and downs are the test's."""

    dialled: list[Link]

    def __init__(
        self,
        peer_id: str,
        address: str,
        _method: object,
        _request: object,
        _us: Identity,
        role: str,
        owner: Links,
        message_bytes_max: int,
    ) -> None:
        self.address = address
        self.message_bytes_max = message_bytes_max
        self.is_up = False
        self.peer = Identity(role, peer_id, 7)
        self._owner = owner
        self.dialled.append(self)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def up(self) -> None:
        self.is_up = True
        self._owner.on_up(self, self.peer)  # type: ignore[arg-type]  # stands in for it

    def down(self) -> None:
        self.is_up = False
        self._owner.on_down(self, "gone")  # type: ignore[arg-type]  # stands in for it


class Bench:
    """Links that follow what a test says the registry says; `told` is what their owner hears."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._views: asyncio.Queue[tuple[PeerRecord, ...]] = asyncio.Queue()
        us = Identity("fusion", "f")
        note = self.told.append
        self.links = Links("drafter", us, lambda _: None, DraftRequest, self, lambda _: note("draining"), BOUND)

    def on_up(self, _link: object, _peer: Identity) -> None:
        self.told.append("up")

    def on_message(self, _link: object, _message: object) -> None:
        raise AssertionError("nobody sends anything here")

    def on_down(self, _link: object, _reason: str) -> None:
        self.told.append("down")

    async def see(self, *states: str) -> None:
        """The registry names one peer per state at one address, or nobody."""
        self._views.put_nowait(tuple(replace(RECORD, state=state) for state in states))
        async with asyncio.timeout(DEADLINE_S):
            await self._views.join()

    async def views(self) -> AsyncIterator[tuple[PeerRecord, ...]]:
        while True:
            yield await self._views.get()
            self._views.task_done()


@pytest.fixture(autouse=True)
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """All links that were made."""
    Link.dialled = []
    monkeypatch.setattr(module, "PeerLink", Link)
    return Link.dialled


@asynccontextmanager
async def following() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.create_task(bench.links.follow(bench.views()))
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_owner_is_told_once_that_a_peer_drains_and_its_link_stays(dialled: list[Link]) -> None:
    async with following() as bench:
        await bench.see(SERVING)
        (link,) = dialled
        link.up()
        for _ in range(2):
            await bench.see(DRAINING)
        assert bench.told == ["up", "draining"]
        assert [*bench.links] == [*dialled]
        link.down()
        assert bench.told == ["up", "draining", "down"]
        assert list(bench.links) == [], "it is not dialled again"


async def test_a_peer_that_drains_before_its_link_is_up_is_let_go(dialled: list[Link]) -> None:
    async with following() as bench:
        await bench.see(SERVING)
        assert [*bench.links] == [*dialled]
        await bench.see(DRAINING)
        assert list(bench.links) == []
        assert bench.told == []


@pytest.mark.parametrize("state", [DRAINING, LOST])
async def test_a_peer_that_does_not_serve_is_not_dialled(dialled: list[Link], state: str) -> None:
    async with following() as bench:
        await bench.see(state)
        assert dialled == []


async def test_a_peer_that_comes_back_after_draining_is_a_new_one(dialled: list[Link]) -> None:
    async with following() as bench:
        await bench.see(SERVING)
        dialled[0].up()
        await bench.see(DRAINING)
        dialled[0].down()
        await bench.see(SERVING)
        dialled[1].up()
        await bench.see(DRAINING)
        assert bench.told == ["up", "draining", "down", "up", "draining"]


async def test_every_link_leads_to_the_peer_that_the_registry_names(dialled: list[Link]) -> None:
    async with following() as bench:
        await bench.see(SERVING)
    assert [(link.peer.peer_id, link.address) for link in dialled] == [(RECORD.peer_id, RECORD.address)]


async def test_every_link_takes_messages_of_the_size_that_its_process_does(dialled: list[Link]) -> None:
    async with following() as bench:
        await bench.see(SERVING)
    assert [link.message_bytes_max for link in dialled] == [BOUND]
