"""A scheduler, its fusion and its verifiers: the real machines, and how their commands reach the workers.

What a service does with sockets is done here with wires; see `services/scheduler` and `services/fusion`. Scheduler and
fusion stand side by side: no time passes between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.fusion import Command, Fusion
from cosine.core.plan import CancelSteps, CloseSessions, Guess, Step, Trees
from cosine.core.processors import Processor
from cosine.core.scheduler import Scheduler
from cosine.sim import wire
from cosine.sim.clock import Clock, Timer
from cosine.sim.control import Control
from cosine.sim.device import Job
from cosine.sim.library import Library
from cosine.sim.peers import DrafterPeer, Shape, VerifierPeer
from cosine.sim.profile import Profile
from cosine.sim.verifier import Verifier
from cosine.sim.wire import Wire

FUSION = "fusion"

BATCH_ROWS_MAX = 1024  # a data centre's verifier; the default is a laptop's


@dataclass(frozen=True, slots=True)
class Place:
    """What all cells share. `may_guess` says that verifiers may be given drafted context."""

    clock: Clock
    profile: Profile
    shape: Shape
    library: Library
    drafters: Mapping[str, DrafterPeer]
    may_guess: bool


class Cell:
    """A scheduler, its fusion and its verifiers. Both machines work off what reaches them one thing at a time."""

    def __init__(self, number: int, place: Place, tell_gateway: Callable[[ev.Progress], None]) -> None:
        self.number, self._place, self._tell_gateway = number, place, tell_gateway
        self._clock = place.clock
        shape, profile = place.shape, place.profile
        self.drafters = self._own_drafters() if not shape.shared_drafters else dict(place.drafters)
        self._admitted = 0
        self.scheduler = Scheduler(
            SchedulerConfig(session_prefix=f"s{number}", live_max=shape.live_max, batch_rows_max=BATCH_ROWS_MAX)
        )
        self.fusion = Fusion(max(1024, 2 * shape.live_max))
        self.scheduling = Control(self._clock, shape.control.scheduler_event_us, shape.control.scheduler_item_us)
        self.fusing = Control(self._clock, shape.control.fusion_event_us, shape.control.fusion_item_us)
        self._alarm = Timer(self._clock, lambda: self.tell(ev.Tick()))
        self._deadline = Timer(self._clock, self._fusion_late)
        self._wires: dict[str, tuple[Wire, Wire]] = {}
        self.verifiers: dict[str, VerifierPeer] = {}
        for index in range(profile.verifier_count):
            name = f"verifier-{number}-{index}"
            model = Verifier(place.library, profile.verifier, shape.tree_nodes_max, place.may_guess)
            self.verifiers[name] = VerifierPeer(self._clock, name, model, profile.verifier_link)
        self._open()

    @property
    def room(self) -> int:
        """How many requests more it may be given."""
        return self.scheduler.room - self._admitted

    def admit(self, admission: ev.Admission) -> None:
        """Gives the scheduler a request."""
        self._admitted += 1
        self.tell(ev.RequestCame(admission))

    def tell(self, *events: ev.Event) -> None:
        """Events of one message for the scheduler."""
        self.scheduling.do(lambda: self._schedule(events), self._carry_out)

    def _schedule(self, events: Sequence[ev.Event]) -> tuple[list[ev.Command], int]:
        commands: list[ev.Command] = []
        for event in events:
            self._admitted -= isinstance(event, ev.RequestCame)
            commands += self.scheduler.handle(event, self._clock.now)
        return commands, len(events)

    def _own_drafters(self) -> dict[str, DrafterPeer]:
        """Its part of the drafters: sets of one of each, dealt to the cells in turn."""
        kinds, cells = len(self._place.profile.drafters), self._place.shape.cell_count
        dealt = enumerate(self._place.drafters.items())
        return dict(entry for number, entry in dealt if number // kinds % cells == self.number)

    def _open(self) -> None:
        shape, profile = self._place.shape, self._place.profile
        device = profile.verifier
        for name in self.verifiers:
            facts = ev.VerifierFacts(
                name,
                shape.verifier_sessions_max,
                shape.tree_nodes_max,
                2048,
                device.base_ms,
                device.row_ms,
                Processor(name),
            )
            self.tell(ev.VerifierUp(facts))
        self.tell(ev.FusionUp(FUSION))
        for name in self.drafters:
            self.fusion.drafter_up(name)
        facts_of = tuple(
            ev.DrafterFacts(
                name, peer.timing.base_ms, peer.timing.row_ms / peer.timing.count, peer.specialist, Processor(name)
            )
            for name, peer in self.drafters.items()
        )
        self.tell(ev.DraftersChanged(FUSION, tuple(self.drafters), facts_of))

    # -- the scheduler's commands

    def _carry_out(self, commands: Sequence[ev.Command]) -> None:
        for command in commands:
            match command:
                case ev.Progress():
                    self._tell_gateway(command)
                case ev.SendPlan():
                    self._fuse(command)
                case ev.SendBatch():
                    self._send_batch(command)
                case ev.CancelBatch():
                    self._cancel_batch(command)
                case ev.CloseSession():
                    self._close(command)
                case ev.WakeAt():
                    self._alarm.set(command.time)
                case _:
                    raise AssertionError(f"no part of this mesh can do {command}")

    def _send_batch(self, command: ev.SendBatch) -> None:
        peer = self.verifiers[command.verifier]
        items = command.items

        def answer(verdicts: list[ev.SessionVerdict], seconds: float) -> None:
            forward_us = int(seconds * 1e6)
            events = [ev.VerdictCame(command.batch_id, verdict, forward_us) for verdict in verdicts]
            size = wire.verdicts_bytes(verdicts)
            peer.back.send(size, lambda: self.tell(*events, ev.BatchDone(command.batch_id)))

        sessions = frozenset(item.session_id for item in items)
        job = Job(peer.name, command.batch_id, sessions, items, answer)
        peer.there.send(wire.batch_bytes(items), lambda: peer.device.add(job))

    def _cancel_batch(self, command: ev.CancelBatch) -> None:
        peer = self.verifiers[command.verifier]
        peer.there.send(wire.ANSWER_BYTES, lambda: peer.device.cancel(peer.name, (command.batch_id,)))

    def _close(self, command: ev.CloseSession) -> None:
        sessions = (command.session_id,)
        if command.peer_id in self.verifiers:
            peer = self.verifiers[command.peer_id]
            peer.there.send(wire.closing_bytes(sessions), lambda: peer.device.add(_closing(sessions)))
            return
        self.fusing.do(lambda: (self.fusion.close(sessions), 1), self._fusion_says)

    # -- fusion's commands

    def _fuse(self, command: ev.SendPlan) -> None:
        plan = command.plan
        self.fusing.do(lambda: (self.fusion.plan(plan, self._clock.now), len(plan.items)), self._fusion_says)

    def _fusion_says(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Step):
                self._send_step(command)
            elif isinstance(command, Trees):
                events = [ev.TreeCame(command.round_id, drafted) for drafted in command.results]
                self.tell(*events, ev.PlanDone(command.round_id))
            else:
                self._take_back(command)
        deadline = self.fusion.next_deadline()
        if deadline is not None and (self._deadline.time is None or deadline < self._deadline.time):
            self._deadline.set(deadline)

    def _take_back(self, command: CancelSteps | CloseSessions) -> None:
        device, there = self.drafters[command.drafter].device, self._wire(command.drafter)[0]
        if isinstance(command, CancelSteps):
            there.send(wire.ANSWER_BYTES, partial(device.cancel, f"{self.number}", command.step_ids))
        else:
            closing = _closing(command.session_ids)
            there.send(wire.closing_bytes(command.session_ids), partial(device.add, closing))

    def _fusion_late(self) -> None:
        self.fusing.do(lambda: (self.fusion.tick(self._clock.now), 1), self._fusion_says)

    def _send_step(self, step: Step) -> None:
        peer = self.drafters[step.drafter]
        there, back = self._wire(step.drafter)

        def answer(guesses: list[Guess], seconds: float) -> None:
            size = wire.candidates_bytes(guesses)
            back.send(size, lambda: self._candidates(step.step_id, guesses, int(seconds * 1e6)))

        sessions = frozenset(item.session_id for item in step.items)
        job = Job(f"{self.number}", step.step_id, sessions, step.items, answer)
        there.send(wire.step_bytes(step.items), lambda: peer.device.add(job))

    def _candidates(self, step_id: int, guesses: list[Guess], forward_us: int) -> None:
        self.fusing.do(
            lambda: (self.fusion.candidates(step_id, guesses, forward_us, self._clock.now), len(guesses)),
            self._fusion_says,
        )

    def _wire(self, drafter: str) -> tuple[Wire, Wire]:
        found = self._wires.get(drafter)
        if found is None:
            link = self._place.profile.drafter_link
            found = self._wires[drafter] = (Wire(self._clock, link), Wire(self._clock, link))
        return found


def _closing(session_ids: tuple[str, ...]) -> Job[Any, Any]:
    return Job("", 0, frozenset(), (), lambda results, seconds: None, session_ids)
