"""The scheduler's shell: turns messages into events, carries out the core's commands, takes requests from Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
import structlog

from cosine.core import events as ev
from cosine.core.errors import Mismatch
from cosine.core.scheduler import Scheduler
from cosine.rpc.hello import Identity, check_same_tokenizer, pass_times, processor_of
from cosine.rpc.metrics import SCHEDULER_HANDLE_SECONDS, SCHEDULER_KINDS, SCHEDULER_LIVE, SCHEDULER_STALE
from cosine.rpc.streams import OUTBOX_MAX, Joining, Outbox, PeerLink, accept
from cosine.rpc.telemetry import Spans
from cosine.store.admission import AdmissionReader
from cosine.store.registry import LOST, LearnedTime, PeerRecord
from cosine.v1 import fusion_pb2, verifier_pb2
from cosine.v1 import scheduler_pb2 as pb
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceServicer
from services.scheduler import convert
from services.scheduler.admitting import Admitting
from services.scheduler.fusions import Fusion
from services.scheduler.target import Target
from services.scheduler.verifiers import Verifier

WORK = ev.SendPlan | ev.SendBatch | ev.CancelBatch
# A gateway that reads slowly is told the same in fewer messages: few wait of each request, and no burst is a stall.
JOINED_PROGRESS = Joining(convert.progress_key, convert.join_progress)

log = structlog.get_logger()


class SchedulerServicer(SchedulerServiceServicer):
    """Serves gateways' streams; `VerifierLinks` and `FusionLinks` below own the other two kinds."""

    def __init__(self, identity: Identity, core: Scheduler, admissions: AdmissionReader) -> None:
        self._identity = identity
        self._core = core
        self._admitting = Admitting(
            admissions, lambda: core.room, lambda gateway: gateway in self._gateways, self._take_in
        )
        self._gateways: dict[str, Outbox] = {}
        self._target = Target()
        self._arrived: dict[str, PeerLink] = {}  # verifiers, also those that do not fit
        self._verifiers: dict[str, Verifier] = {}
        self._fusions: dict[str, Fusion] = {}
        self._drafters: dict[str, tuple[Identity, ...]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._spans = Spans()
        self._judges: set[str] = set()
        self._parting: dict[str, PeerLink] = {}
        SCHEDULER_KINDS.set_function(lambda: core.knowledge.cluster_count)

    @property
    def load(self) -> int:
        return self._core.live_count

    async def Attach(
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        await accept(
            context,
            self._identity,
            "gateway",
            pb.AttachResponse,
            lambda peer, outbox: _Gateway(self, peer, outbox),
            Outbox(OUTBOX_MAX + 2 * self._core.config.live_max, JOINED_PROGRESS),
        )

    def attach(self, gateway: Identity, outbox: Outbox) -> None:
        """A gateway came."""
        self._gateways[gateway.peer_id] = outbox
        self._target.gateway_came(gateway)
        self._settle()
        self._admitting.look_again()

    def detach(self, gateway: str, outbox: Outbox) -> None:
        """A gateway's stream ended; unless it has come back by another, its requests are dropped."""
        if self._gateways.get(gateway) is outbox:
            del self._gateways[gateway]
            self.handle(ev.GatewayDown(gateway))

    # -- the machine

    def handle(self, *events: ev.Event) -> None:
        """Gives the core events and carries out what it asks for: first the work that workers wait for."""
        now = asyncio.get_running_loop().time()
        start, stale_count = time.perf_counter(), self._core.stale_count
        commands = [command for event in events for command in self._core.handle(event, now)]
        took_s = time.perf_counter() - start
        for command in commands:
            if isinstance(command, WORK):
                self._carry_out(command)
        for command in commands:
            if not isinstance(command, WORK):
                self._carry_out(command)
        for event in events:
            self._end_span(event)
        SCHEDULER_HANDLE_SECONDS.observe(took_s / len(events))
        SCHEDULER_LIVE.set(self._core.live_count)
        SCHEDULER_STALE.inc(self._core.stale_count - stale_count)
        self._changed.set()
        self._admitting.look_again()

    def _end_span(self, event: ev.Event) -> None:
        if isinstance(event, ev.BatchDone):
            self._spans.end(event.batch_id)
        elif isinstance(event, ev.PlanDone):
            self._spans.end(event.round_id)

    def _carry_out(self, command: ev.Command) -> None:
        """A message that cannot be sent needs no repair here: the link's loss is an event of its own."""
        match command:
            case ev.SendBatch():
                trace = self._spans.start(command.batch_id, "verify", command.traceparent)
                self._verifiers[command.verifier].verify(convert.batch_to_proto(command, trace))
            case ev.SendPlan():
                trace = self._spans.start(command.plan.round_id, "draft", command.plan.traceparent)
                self._fusions[command.fusion].plan(convert.plan_to_proto(command, trace))
            case ev.CancelBatch():
                self._verifiers[command.verifier].cancel(command.batch_id)
            case ev.ResetPeer():
                log.error("verifier does not answer", verifier=command.peer_id)
                self._verifiers[command.peer_id].link.reset("a batch was not answered in time")
            case ev.Progress():
                outbox = self._gateways.get(command.gateway)
                if outbox is not None:
                    outbox.send(convert.progress_to_proto(command))
            case ev.CloseSession():
                self._close_session(command)
            case ev.WakeAt():
                self._wake_at(command.time)

    def _close_session(self, command: ev.CloseSession) -> None:
        if command.peer_id in self._verifiers:
            self._verifiers[command.peer_id].close(command.session_id)
        elif command.peer_id in self._fusions:
            self._fusions[command.peer_id].close(command.session_id)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self.handle, ev.Tick())

    async def share(self, views: AsyncIterable[tuple[PeerRecord, ...]]) -> None:
        """Follows how many schedulers use the same verifiers, for ever. `views` yields the schedulers at every change;
        one that drains still has sessions."""
        async for peers in views:
            alive = {peer.peer_id for peer in peers if peer.state != LOST} | {self._identity.peer_id}
            self.handle(ev.SchedulersChanged(len(alive)))

    # -- workers

    def verifier_up(self, link: PeerLink, peer: Identity) -> None:
        """A verifier came; drafters that fit it may be more now, or fewer."""
        self._leave(peer.peer_id)
        self._arrived[peer.peer_id] = link
        self._target.verifier_came(peer)
        self._settle()

    def verifier_draining(self, peer_id: str, link: PeerLink) -> None:
        """A verifier answers the batch that it has; then, at once where it has none, it is as good as gone."""
        seat = self._core.seats.get(peer_id)
        if seat is not None and seat.batches:
            self._parting[peer_id] = link
        else:
            self.verifier_down(peer_id, link)

    def verifier_down(self, peer_id: str, link: PeerLink) -> None:
        """A verifier is gone."""
        self._parting.pop(peer_id, None)
        if self._arrived.get(peer_id) is link:
            del self._arrived[peer_id]
            self._target.verifier_left(peer_id)
            self._leave(peer_id)

    def _settle(self) -> None:
        """Uses the verifiers that hold the target, and no others."""
        fitting = self._target.fitting()
        for peer_id in [name for name in self._verifiers if name not in fitting]:
            self._leave(peer_id)
        for peer_id, link in list(self._arrived.items()):
            if peer_id in fitting and peer_id not in self._verifiers:
                self._use(link)

    def _use(self, link: PeerLink) -> None:
        verifier = Verifier(link)
        self._verifiers[verifier.peer.peer_id] = verifier
        self.handle(ev.VerifierUp(convert.verifier_facts(verifier.peer, self._core.config.batch_rows_max)))
        for fusion in self._fusions:
            self._offer_drafters(fusion)

    def _leave(self, peer_id: str) -> None:
        if self._verifiers.pop(peer_id, None) is not None:
            self._judges.discard(peer_id)
            self.handle(ev.VerifierDown(peer_id))

    def verdicts_came(self, peer_id: str, message: verifier_pb2.VerdictBatch) -> None:
        """A verifier has judged a batch."""
        verifier = self._verifiers.get(peer_id)
        if verifier is not None:
            self._judges.add(peer_id)
        *verdicts, done = convert.verdicts_from_proto(message)
        parting = self._parting.get(peer_id)
        if parting is None:
            if verifier is not None:
                verifier.answered(message.batch_id)
            self.handle(*verdicts, done)
            return
        for verdict in verdicts:
            self.handle(verdict)
        self._end_span(done)
        self.verifier_down(peer_id, parting)

    def learned(self) -> tuple[LearnedTime, ...]:
        """What the core has learned of the passes of each verifier that has judged something, from its own batches.

        Of drafters they tell themselves: fusion stands between, and what the core learns there (exchanges, passes and
        rows of a plan's slowest drafters, and what they cost one another) is no single peer's.
        """
        passes = {name: seat.verify for name, seat in sorted(self._core.seats.items()) if name in self._judges}
        return tuple(LearnedTime(name, its.base_ms, its.slope_ms, its.kilotoken_ms) for name, its in passes.items())

    def fusion_up(self, link: PeerLink, peer: Identity) -> None:
        """Fusion came; it will say which drafters it has."""
        self._fusions[peer.peer_id] = Fusion(link, asyncio.get_running_loop().time)
        self.handle(ev.FusionUp(peer.peer_id))

    def fusion_down(self, peer_id: str, link: PeerLink) -> None:
        """Fusion is gone."""
        known = self._fusions.get(peer_id)
        if known is not None and known.link is link:
            del self._fusions[peer_id]
            self._drafters.pop(peer_id, None)
            self.handle(ev.FusionDown(peer_id))

    def trees_came(self, peer_id: str, message: fusion_pb2.DraftedTrees) -> None:
        """Fusion has answered a plan."""
        if peer_id in self._fusions:
            self._fusions[peer_id].answered(message.round_id)
        self.handle(*convert.trees_from_proto(message, self._target.vocab_size))

    def drafters_changed(self, fusion: str, entries: tuple[Identity, ...]) -> None:
        """Fusion says which drafters it is connected to."""
        self._drafters[fusion] = entries
        self._offer_drafters(fusion)

    def _offer_drafters(self, fusion: str) -> None:
        """Tells the core of the drafters whose tokens mean what the target's mean."""
        target = next((verifier.peer for verifier in self._verifiers.values()), None)
        fitting = []
        for drafter in self._drafters.get(fusion, ()):
            try:
                if target is not None:
                    check_same_tokenizer(target, drafter)
                times = (drafter.base_ms or 0.0, drafter.row_ms or 0.0)
                fitting.append(ev.DrafterFacts(drafter.peer_id, *times, drafter.model_id, drafter.processor))
            except Mismatch as error:
                log.error("drafter left out", drafter=drafter.peer_id, reason=error.message)
        names = tuple(facts.peer_id for facts in fitting)
        self.handle(ev.DraftersChanged(fusion, names, tuple(fitting)))

    # -- admission

    async def admit(self) -> None:
        """Takes requests from Redis as long as there is room, for ever."""
        await self._admitting.run()

    def _take_in(self, request: pb.AdmittedRequest) -> None:
        offset = asyncio.get_running_loop().time() - time.time()
        self.handle(ev.RequestCame(convert.admission_from_proto(request, offset)))

    async def drain(self) -> None:
        """Takes nothing new and waits until every request has ended."""
        await self._admitting.drain()
        while self._core.live_count:
            self._changed.clear()
            await self._changed.wait()


class _Gateway:
    """One gateway's stream."""

    def __init__(self, servicer: SchedulerServicer, gateway: Identity, outbox: Outbox) -> None:
        self._servicer = servicer
        self._gateway = gateway.peer_id
        self._outbox = outbox
        servicer.attach(gateway, outbox)

    def on_message(self, message: pb.AttachRequest) -> None:
        if message.HasField("cancel"):
            self._servicer.handle(ev.RequestLeft(message.cancel.request_id, message.cancel.attempt))

    def on_closed(self) -> None:
        self._servicer.detach(self._gateway, self._outbox)


class VerifierLinks:
    """Owner of the links to verifiers."""

    def __init__(self, servicer: SchedulerServicer) -> None:
        self._servicer = servicer

    def on_up(self, link: PeerLink, peer: Identity) -> None:
        self._servicer.verifier_up(link, peer)

    def on_down(self, link: PeerLink, reason: str) -> None:
        assert link.peer is not None
        self._servicer.verifier_down(link.peer.peer_id, link)

    def on_draining(self, link: PeerLink) -> None:
        assert link.peer is not None
        self._servicer.verifier_draining(link.peer.peer_id, link)

    def on_message(self, link: PeerLink, message: verifier_pb2.VerifyResponse) -> None:
        if message.HasField("verdicts"):
            assert link.peer is not None
            self._servicer.verdicts_came(link.peer.peer_id, message.verdicts)


class FusionLinks:
    """Owner of the links to fusion."""

    def __init__(self, servicer: SchedulerServicer) -> None:
        self._servicer = servicer

    def on_up(self, link: PeerLink, peer: Identity) -> None:
        self._servicer.fusion_up(link, peer)

    def on_down(self, link: PeerLink, reason: str) -> None:
        assert link.peer is not None
        self._servicer.fusion_down(link.peer.peer_id, link)

    def on_message(self, link: PeerLink, message: fusion_pb2.FuseResponse) -> None:
        assert link.peer is not None
        if message.HasField("trees"):
            self._servicer.trees_came(link.peer.peer_id, message.trees)
        elif message.HasField("drafters"):
            self._servicer.drafters_changed(link.peer.peer_id, _identities(message.drafters))


def _identities(message: fusion_pb2.DrafterList) -> tuple[Identity, ...]:
    return tuple(_identity(entry) for entry in message.drafters)


def _identity(entry: fusion_pb2.DrafterEntry) -> Identity:
    base_ms, row_ms = pass_times(entry)
    return Identity(
        role="drafter",
        peer_id=entry.peer_id,
        incarnation=entry.incarnation,
        model_id=entry.model_id,
        tokenizer_fingerprint=entry.tokenizer_fingerprint,
        vocab_size=entry.vocab_size,
        base_ms=base_ms,
        row_ms=row_ms,
        processor=processor_of(entry),
    )
