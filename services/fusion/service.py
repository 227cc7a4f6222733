"""Fusion's servicer: carries messages between schedulers, the core's fusion machine and the drafters' links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import structlog

from cosine.core.fusion import Command, Fusion
from cosine.core.plan import CancelSteps, CloseSessions, Step, Trees
from cosine.rpc.hello import Identity, processor_to_proto
from cosine.rpc.metrics import FUSION_SESSIONS, FUSION_STALE
from cosine.rpc.streams import Credits, Outbox, PeerLink, accept
from cosine.rpc.telemetry import Spans
from cosine.v1 import drafter_pb2
from cosine.v1 import fusion_pb2 as pb
from cosine.v1.fusion_pb2_grpc import FusionServiceServicer
from services.fusion.convert import guess_from_proto, plan_from_proto, step_to_proto, trees_to_proto
from services.fusion.drafters import Drafter

log = structlog.get_logger()


class FusionServicer(FusionServiceServicer):
    """Serves schedulers' streams and owns the drafters' links; everything runs on the event loop, the core decides."""

    def __init__(self, identity: Identity, sessions_max: int) -> None:
        self._identity = identity
        self._core = Fusion(sessions_max)
        self._drafters: dict[str, Drafter] = {}
        self._streams: set[_Stream] = set()
        self._rounds: dict[int, tuple[_Stream, int]] = {}
        self._next_round = 1
        self._timer: asyncio.TimerHandle | None = None
        self._stale_seen = 0
        self._spans = Spans()
        self._traces: dict[int, str] = {}
        self._is_draining = False
        self._answered = asyncio.Event()

    @property
    def load(self) -> int:
        return self._core.session_count

    async def Fuse(
        self, request_iterator: AsyncIterator[pb.FuseRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            context,
            self._identity,
            "scheduler",
            pb.FuseResponse,
            lambda _peer, outbox: _Stream(self, outbox, self._identity.bounds.credits),
        )

    # -- schedulers

    def attach(self, stream: _Stream) -> None:
        """A scheduler came: tell it who can draft."""
        self._streams.add(stream)
        stream.outbox.send(self._drafter_list())

    def detach(self, stream: _Stream) -> None:
        """A scheduler went: nobody waits for its rounds."""
        self._streams.discard(stream)
        self._rounds = {key: value for key, value in self._rounds.items() if value[0] is not stream}
        self._answered.set()
        self.close(stream.sessions)

    def plan(self, stream: _Stream, message: pb.DraftPlan) -> None:
        """A new plan; while draining, it is answered without trees."""
        if self._is_draining:
            stream.answer(trees_to_proto(message.round_id, ()))
            return
        plan = plan_from_proto(message, self._next_round)
        self._next_round += 1
        self._rounds[plan.round_id] = (stream, message.round_id)
        self._traces[plan.round_id] = self._spans.start(plan.round_id, "fuse", message.traceparent)
        self._carry_out(self._core.plan(plan, self._now()))

    def close(self, session_ids: Iterable[str]) -> None:
        """Sessions ended: forget them here and at the drafters that were asked of them."""
        self._carry_out(self._core.close(session_ids))

    async def drain(self) -> None:
        """Has no drafters for new plans any more; returns once all plans are answered, which takes their deadlines at
        most."""
        self._is_draining = True
        self._tell_drafters()
        while self._rounds:
            self._answered.clear()
            await self._answered.wait()
        for stream in list(self._streams):
            await stream.outbox.flushed()

    # -- drafters (LinkOwner)

    def on_up(self, link: PeerLink, peer: Identity) -> None:
        self._drafters[peer.peer_id] = Drafter(link, self._encode)
        self._core.drafter_up(peer.peer_id)
        self._tell_drafters()

    def on_draining(self, link: PeerLink) -> None:
        """A drafter finishes what it was asked, and is gone for new plans."""
        drafter = self._drafter_of(link)
        if drafter is not None:
            drafter.is_draining = True
            self._core.drafter_draining(drafter.peer.peer_id)
            self._tell_drafters()

    def on_down(self, link: PeerLink, reason: str) -> None:
        drafter = self._drafter_of(link)
        if drafter is not None:
            del self._drafters[drafter.peer.peer_id]
            self._carry_out(self._core.drafter_down(drafter.peer.peer_id, self._now()))
            self._tell_drafters()

    def on_message(self, link: PeerLink, message: drafter_pb2.DraftResponse) -> None:
        assert link.peer is not None
        if not message.HasField("candidates"):
            return
        candidates = message.candidates
        guesses = [guess_from_proto(result, link.peer.vocab_size) for result in candidates.results]
        self._carry_out(self._core.candidates(candidates.step_id, guesses, candidates.forward_us, self._now()))
        drafter = self._drafter_of(link)
        if drafter is not None:
            drafter.answered(candidates.step_id)
        FUSION_STALE.inc(self._core.stale_count - self._stale_seen)
        self._stale_seen = self._core.stale_count

    def _drafter_of(self, link: PeerLink) -> Drafter | None:
        """The drafter behind a link, unless it has come by another since."""
        assert link.peer is not None
        drafter = self._drafters.get(link.peer.peer_id)
        return drafter if drafter is not None and drafter.link is link else None

    def _encode(self, step: Step) -> drafter_pb2.DraftRequest:
        return step_to_proto(step, self._traces.get(step.round_id, ""))

    # -- the machine's commands

    def _carry_out(self, commands: list[Command]) -> None:
        """Sends what the core asks for; a step that cannot be sent is a drafter lost."""
        queue = list(commands)
        while queue:
            command = queue.pop(0)
            if isinstance(command, Step):
                drafter = self._drafters.get(command.drafter)
                if drafter is None or not drafter.ask(command):
                    queue += self._core.drafter_down(command.drafter, self._now())
            elif isinstance(command, CancelSteps):
                if command.drafter in self._drafters:
                    self._drafters[command.drafter].cancel(command.step_ids)
            elif isinstance(command, CloseSessions):
                if command.drafter in self._drafters:
                    self._drafters[command.drafter].close(command.session_ids)
            else:
                self._finish(command)
        self._set_timer()
        FUSION_SESSIONS.set(self._core.session_count)

    def _finish(self, trees: Trees) -> None:
        for drafter in self._drafters.values():
            drafter.end_round(trees.round_id)
        self._traces.pop(trees.round_id, None)
        self._spans.end(trees.round_id)
        if trees.round_id in self._rounds:
            stream, round_id = self._rounds.pop(trees.round_id)
            stream.answer(trees_to_proto(round_id, trees.results))
            self._answered.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._core.next_deadline()
        loop = asyncio.get_running_loop()
        self._timer = None if deadline is None else loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._carry_out(self._core.tick(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell_drafters(self) -> None:
        message = self._drafter_list()
        log.info("drafters", names=sorted(entry.peer_id for entry in message.drafters.drafters))
        for stream in self._streams:
            stream.outbox.send(message)

    def _drafter_list(self) -> pb.FuseResponse:
        entries = [
            pb.DrafterEntry(
                peer_id=peer.peer_id,
                model_id=peer.model_id,
                incarnation=peer.incarnation,
                tokenizer_fingerprint=peer.tokenizer_fingerprint,
                vocab_size=peer.vocab_size,
                base_ms=peer.base_ms,
                row_ms=peer.row_ms,
                processor=processor_to_proto(peer.processor),
            )
            for peer in (drafter.peer for drafter in self._drafters.values() if not drafter.is_draining)
            if not self._is_draining
        ]
        return pb.FuseResponse(drafters=pb.DrafterList(drafters=entries))


class _Stream:
    """One scheduler."""

    def __init__(self, servicer: FusionServicer, outbox: Outbox, credits: int) -> None:
        self._servicer = servicer
        self.outbox = outbox
        self.sessions: set[str] = set()
        self._credits = Credits(credits)
        servicer.attach(self)

    def on_message(self, message: pb.FuseRequest) -> None:
        if message.HasField("plan"):
            self._credits.take()
            self.sessions.update(item.session_id for item in message.plan.items)
            self._servicer.plan(self, message.plan)
        elif message.HasField("close"):
            self.sessions.difference_update(message.close.session_ids)
            self._servicer.close(message.close.session_ids)

    def on_closed(self) -> None:
        self._servicer.detach(self)

    def answer(self, message: pb.FuseResponse) -> None:
        """Trees of a plan."""
        self._credits.give_back()
        self.outbox.send(message)
