"""Between the schedulers' streams and the running requests: routes progress, notices losses, carries cancellations.

It keeps one long-lived Attach stream to every scheduler in the registry (cosine.peer.links).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from cosine.core.errors import BadRequest, Cancelled, Full, Unavailable
from cosine.peer.links import Links
from cosine.rpc.hello import Identity
from cosine.rpc.streams import PeerLink
from cosine.store.registry import PeerRecord
from cosine.v1.scheduler_pb2 import AttachRequest, AttachResponse, CancelRequest
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.gateway.running import Running

log = structlog.get_logger()


class Relay:
    """All running requests and all schedulers. Owned by the event loop; no method but `run` and `connected` waits."""

    def __init__(self, identity: Identity, requests_max: int, retry_delay_ms: int, message_bytes_max: int) -> None:
        self._requests_max = requests_max
        self._retry_delay_ms = retry_delay_ms
        self._running: dict[str, Running] = {}
        self._placed = 0
        self._links = Links("scheduler", identity, _attach, AttachRequest, self, message_bytes_max=message_bytes_max)
        self._is_up = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def load(self) -> int:
        """Requests running."""
        return len(self._running)

    @contextmanager
    def place(self, request_id: str, takes_over: bool) -> Iterator[None]:
        """Keeps a place free for a request while it is read and checked, so that a full gateway does not even begin.

        Raises Full.
        """
        if not (takes_over and request_id in self._running):
            self._check_room()
        self._placed += 1
        try:
            yield
        finally:
            self._placed -= 1
            self._left.set()

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
        if earlier is None:
            self._check_room()
        if earlier is not None:
            earlier.fail(Cancelled("TAKEN_OVER", "the request was resumed on another call"))
        self._running[running.request_id] = running
        try:
            yield
        finally:
            if self._running.get(running.request_id) is running:
                del self._running[running.request_id]
            self._left.set()

    def _check_room(self) -> None:
        if len(self._running) + self._placed >= self._requests_max:
            raise Full(
                "GATEWAY_FULL",
                f"{self._requests_max} requests run at this gateway; try again later, or at another gateway",
                {"bound": str(self._requests_max)},
                self._retry_delay_ms,
            )

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
        """Waits until nothing runs, and nothing that is still being read will."""
        while self._running or self._placed:
            self._left.clear()
            await self._left.wait()

    def cancel(self, running: Running) -> None:
        """Tells the scheduler that has the current attempt to stop; all of them where it is not known which."""
        links = [running.scheduler] if running.scheduler is not None else list(self._links)
        for link in links:
            self._send_cancel(link, running.request_id, running.attempt)

    async def run(self, views: AsyncIterable[tuple[PeerRecord, ...]]) -> None:
        """Keeps a stream to every scheduler, for ever."""
        await self._links.follow(views)

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
        if not self._links.any_up:
            self._is_up.clear()

    def _send_cancel(self, link: PeerLink, request_id: str, attempt: int) -> None:
        link.send(AttachRequest(cancel=CancelRequest(request_id=request_id, attempt=attempt)))


def _attach(channel: grpc.aio.Channel) -> Any:
    return SchedulerServiceStub(channel).Attach
