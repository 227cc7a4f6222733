"""Between the schedulers' streams and the running requests: routes progress, notices losses, carries cancellations.

It keeps one long-lived Attach stream to every scheduler in the registry. A scheduler that leaves the registry keeps its
stream for as long as that stands, since Redis may know less than we do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import structlog

from cosine.core.errors import BadRequest, Cancelled, Full, Unavailable
from cosine.rpc.hello import Identity
from cosine.rpc.streams import PeerLink
from cosine.store.registry import LOST, PeerRecord
from cosine.v1.scheduler_pb2 import AttachRequest, AttachResponse, CancelRequest
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.gateway.running import Running

log = structlog.get_logger()

Place = tuple[str, str]  # peer id and address


class Relay:
    """All running requests and all schedulers. Owned by the event loop; no method but `run` and `connected` waits."""

    def __init__(self, identity: Identity, requests_max: int, retry_delay_ms: int) -> None:
        self._identity = identity
        self._requests_max = requests_max
        self._retry_delay_ms = retry_delay_ms
        self._running: dict[str, Running] = {}
        self._links: dict[Place, PeerLink] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._wanted: set[Place] = set()
        self._is_up = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def load(self) -> int:
        """Requests running."""
        return len(self._running)

    @contextmanager
    def seat(self, running: Running, takes_over: bool) -> Iterator[None]:
        """A place among the running requests. Raises Full, or BadRequest where the id is in use."""
        earlier = self._running.get(running.request_id)
        if earlier is not None and not takes_over:
            raise BadRequest(
                "REQUEST_ID_IN_USE",
                f"request {running.request_id!r} is running; choose another id, or set resume to take it over",
                {"field": "request_id", "value": running.request_id},
            )
        if earlier is None and len(self._running) >= self._requests_max:
            raise Full(
                "GATEWAY_FULL",
                f"{self._requests_max} requests run at this gateway; try again later, or at another gateway",
                {"bound": str(self._requests_max)},
                self._retry_delay_ms,
            )
        if earlier is not None:
            earlier.fail(Cancelled("TAKEN_OVER", "the request was resumed on another call"))
        self._running[running.request_id] = running
        self._is_idle.clear()
        try:
            yield
        finally:
            if self._running.get(running.request_id) is running:
                del self._running[running.request_id]
            if not self._running:
                self._is_idle.set()

    async def connected(self, timeout_s: float) -> None:
        """Waits for a first scheduler. Raises Unavailable where none comes."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_up.wait()
        except TimeoutError:
            raise Unavailable(
                "NO_SCHEDULER",
                "this gateway is connected to no scheduler; start one, and check that both use the same Redis and mesh",
                retry_delay_ms=self._retry_delay_ms,
            ) from None

    async def idle(self) -> None:
        """Waits until nothing runs."""
        await self._is_idle.wait()

    def cancel(self, running: Running) -> None:
        """Tells the scheduler that has the current attempt to stop; all of them where it is not known which."""
        links = [running.scheduler] if running.scheduler is not None else list(self._links.values())
        for link in links:
            self._send_cancel(link, running.request_id, running.attempt)

    async def run(self, views: AsyncIterable[tuple[PeerRecord, ...]]) -> None:
        """Keeps a stream to every scheduler, for ever."""
        async with asyncio.TaskGroup() as tasks:
            async for peers in views:
                self._wanted = {
                    (peer.peer_id, peer.address) for peer in peers if peer.role == "scheduler" and peer.state != LOST
                }
                for place in self._wanted - self._links.keys():
                    self._links[place] = self._link(place)
                    self._tasks[place] = tasks.create_task(self._links[place].run())
                for place in list(self._links):
                    self._drop_unwanted(place)

    # -- LinkOwner

    def on_up(self, link: PeerLink, peer: Identity) -> None:
        self._is_up.set()

    def on_message(self, link: PeerLink, message: AttachResponse) -> None:
        if not message.HasField("progress"):
            return
        progress = message.progress
        running = self._running.get(progress.request_id)
        if running is not None and progress.attempt == running.attempt:
            running.on_progress(link, progress)
        elif progress.finish_reason == 0 and not progress.HasField("error"):
            self._send_cancel(link, progress.request_id, progress.attempt)  # nobody here waits for it

    def on_down(self, link: PeerLink, reason: str) -> None:
        for running in self._running.values():
            if running.scheduler is link:
                running.on_lost(reason)
        if not any(other.is_up for other in self._links.values()):
            self._is_up.clear()
        for place in [place for place, other in self._links.items() if other is link]:
            self._drop_unwanted(place)

    # --

    def _link(self, place: Place) -> PeerLink:
        return PeerLink(place[1], _attach, AttachRequest, self._identity, "scheduler", self)

    def _drop_unwanted(self, place: Place) -> None:
        if place not in self._wanted and not self._links[place].is_up:
            del self._links[place]
            self._tasks.pop(place).cancel()

    def _send_cancel(self, link: PeerLink, request_id: str, attempt: int) -> None:
        with suppress(Full):  # a scheduler that does not read will be found dead, and its requests with it
            link.send(AttachRequest(cancel=CancelRequest(request_id=request_id, attempt=attempt)))


def _attach(channel: grpc.aio.Channel) -> Any:
    return SchedulerServiceStub(channel).Attach
