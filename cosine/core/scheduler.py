"""The loop of every request: draft, verify, commit. A machine: `handle(event, now)` returns the commands to carry out.

One round per request is in flight. Requests that draft together are verified together; while one group is verified
another drafts. A draft that misses its deadline is verified with nothing (plain decoding), a verifier that dies is
replaced by any other from the tokens alone: workers hold caches, the scheduler holds the loop (design, G2 and G3).
It does no I/O, reads no clock and draws no random number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cosine.core import events as ev
from cosine.core.alarms import Alarms
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest, Cancelled, Expired, MeshError, Unavailable
from cosine.core.live import Live, Phase
from cosine.core.pace import Pace
from cosine.core.planner import Planner, traceparent
from cosine.core.requests import Early, Requests
from cosine.core.rounds import Rounds
from cosine.core.seat import Seat
from cosine.core.seats import Seatless, Seats
from cosine.core.strategy import Strategy, check_demands, parse
from cosine.core.streaming import Streams, is_streamed
from cosine.core.tree import EMPTY

ONE_OF_SEVERAL = (ev.TreeCame, ev.VerdictCame)  # what follows on them waits for the last of their plan or batch


class Scheduler:
    """The machine. `now` is in seconds on any clock that only goes forward."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.pace = Pace()
        self.stale_count = 0
        self._requests = Requests(config, self.pace)
        self.knowledge = self._requests.knowledge
        self._early = Early(config.settle_s)
        self._seatless = Seatless(config.passed_over_max)
        self._planner = Planner(config, self.pace)
        self._seats = Seats(config, self.pace, self._planner)
        self._rounds = Rounds(self, self._planner, self.pace)
        self._streams = Streams(self)
        self._alarms = Alarms()
        self._next_id = 1
        self._out: list[ev.Command] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.RequestCame: self._request_came,
            ev.RequestLeft: self._request_left,
            ev.GatewayDown: self._gateway_down,
            ev.VerifierUp: self._verifier_up,
            ev.VerifierDown: self._verifier_down,
            ev.SchedulersChanged: self._schedulers_changed,
            ev.FusionUp: self._fusion_up,
            ev.FusionDown: self._fusion_down,
            ev.DraftersChanged: self._drafters_changed,
            ev.TreeCame: self._tree_came,
            ev.PlanDone: self._plan_done,
            ev.VerdictCame: self._verdict_came,
            ev.BatchDone: self._batch_done,
            ev.Tick: self._tick,
        }

    @property
    def room(self) -> int:
        """How many further requests may be taken from the queue."""
        return max(0, self._seats.held_max - self.live_count)

    @property
    def live_count(self) -> int:
        return len(self._requests) + len(self._early)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Takes one event; returns what must now be done, in order."""
        self._out = []
        first_alarm = self._alarms.first
        self._handlers[type(event)](event, now)
        if not isinstance(event, ONE_OF_SEVERAL):
            self._seat_all(now)
            self._send_plans(now)
            self._seat_all(now)
            self._out += self._planner.openings(self._new_id)
            self._send_batches(now)
        alarm = self._alarms.first
        if alarm is not None and (isinstance(event, ev.Tick) or alarm != first_alarm):
            self._out.append(ev.WakeAt(alarm))
        return self._out

    # -- requests

    def _request_came(self, event: ev.RequestCame, now: float) -> None:
        admission = event.admission
        older = self._requests.named(admission.request_id)
        if older is not None and older.admission.attempt >= admission.attempt:
            return
        strategy = None
        try:
            strategy = parse(admission.strategy, self.config.default_strategy)
            self._check_demands(strategy, admission)
        except BadRequest as error:
            early = strategy is not None and now < self._early.settled_at
            word = ev.Progress(admission.gateway, admission.request_id, admission.attempt, 0)
            self._out.append(word if early else replace(word, error=error))
            if early:
                self._early.hold(event)
                self._alarms.set(self._early.settled_at, self._look_at_early)
            return
        if older is not None:
            message = "a later request came under the same id; give each request its own id, or resume the later one"
            self._fail(older, Cancelled("TAKEN_OVER", message))
        live = self._requests.enter(admission, strategy, self._new_id(), now)
        self._progress(live)
        if live.finish_reason():
            self._progress(live, finish=live.finish_reason(), figures=live.figures)
            self._forget(live)
            return
        if admission.deadline:
            self._alarms.set(admission.deadline, partial(self._request_late, live.session_id), live.session_id)
        self._unseat(live, now)

    def _check_demands(self, strategy: Strategy, admission: ev.Admission) -> None:
        """Raises BadRequest where the mesh has not had what a strategy demands."""
        if len(admission.token_ids) == admission.prompt_length:  # what has begun goes on with whoever is left
            planner = self._planner
            names = planner.names_seen if strategy.drafter else None
            check_demands(strategy, self._seats.seen_count or None, planner.drafters_seen or None, names or None)

    def _peers_came(self, now: float) -> None:
        self._early.note_peers(self._seats.seen_count + self._planner.drafters_seen, now)
        self._look_at_early(now)

    def _look_at_early(self, now: float) -> None:
        for event in self._early.pop_all():
            self._request_came(event, now)

    def _request_left(self, event: ev.RequestLeft, _now: float) -> None:
        self._early.leave(event.request_id, event.attempt)
        live = self._requests.named(event.request_id)
        if live is not None and live.admission.attempt == event.attempt:
            self._forget(live)

    def _gateway_down(self, event: ev.GatewayDown, _now: float) -> None:
        self._early.forget_gateway(event.gateway)
        for live in self._requests:
            if live.admission.gateway == event.gateway:
                self._forget(live)

    def _fail(self, live: Live, error: MeshError) -> None:
        self._progress(live, figures=live.figures, error=error)
        self._forget(live)

    def _progress(self, live: Live, **more: Any) -> None:
        self._out.append(live.progress(**more))

    def _forget(self, live: Live) -> None:
        """Drops a request and frees what workers hold for it; answers still under way find nobody."""
        self._requests.leave(live)
        self._alarms.forget(live.session_id)
        self._seatless.discard(live)
        if live.stream is not None:
            self._streams.end(live)
        self._out += self._seats.leave(live.session_id, live.verifier)
        self._planner.forget(live)
        for peer_id in (live.verifier, live.fusion):
            if peer_id:
                self._out.append(ev.CloseSession(peer_id, live.session_id))

    # -- peers

    def _verifier_up(self, event: ev.VerifierUp, now: float) -> None:
        self._verifier_down(ev.VerifierDown(event.verifier.peer_id), now)
        self._seats.up(event.verifier)
        self._peers_came(now)

    def _verifier_down(self, event: ev.VerifierDown, now: float) -> None:
        if not self._seats.down(event.peer_id):
            return
        for live in self._requests:
            if live.stream is not None:
                if event.peer_id in live.stream.peer_ids and not self._streams.lose(live, event.peer_id):
                    self.undraft(live)
                    live.verifier = ""
                    self._unseat(live, now)
            elif live.verifier == event.peer_id:
                live.verifier, live.cached = "", 0
                if live.phase is not Phase.DRAFTING and not self._planner.wanted_by(live):
                    self._unseat(live, now)

    def _schedulers_changed(self, event: ev.SchedulersChanged, _now: float) -> None:
        self._seats.share(event.count)

    def _unseat(self, live: Live, now: float) -> None:
        live.phase, live.since = Phase.SEATLESS, now
        self._seatless.add(live)
        self._alarms.set(
            now + self.config.verifier_wait_s, partial(self._request_late, live.session_id), live.session_id
        )

    def _fusion_up(self, event: ev.FusionUp, now: float) -> None:
        self._fusion_down(ev.FusionDown(event.peer_id), now)
        self._planner.fusion_up(event.peer_id)

    def _fusion_down(self, event: ev.FusionDown, now: float) -> None:
        self._planner.fusion_down(event.peer_id)
        for live in self._requests:
            if live.fusion == event.peer_id:
                live.fusion, live.planned = "", 0
                if live.stream is not None:
                    self.undraft(live)
                    self._streams.drafted(live, None)
                elif live.phase is Phase.DRAFTING:
                    self._rounds.drafted(live, EMPTY, now)

    def _drafters_changed(self, event: ev.DraftersChanged, now: float) -> None:
        if event.fusion in self._planner.fusions:
            facts = event.facts or tuple(ev.DrafterFacts(name) for name in event.drafters)
            self._planner.drafters_changed(event.fusion, facts)
            self._peers_came(now)

    # -- seats and batches

    def _seat_all(self, now: float) -> None:
        for live, free in self._seats.places(self._seatless):
            if is_streamed(live):
                self._streams.seat(live, free)
                self._streams.pump(live)
                continue
            free[0].take_place(live)
            self._planner.seated(live)
            self.ready(live, now)

    def ready(self, live: Live, now: float) -> None:
        """The request waits for its verifier's next batch."""
        seat = self.seats.get(live.verifier)
        if seat is None:
            self._unseat(live, now)
        else:
            seat.wait(live, now, self.config.prefill_chunk)

    @property
    def seats(self) -> Mapping[str, Seat]:
        return self._seats.by_peer

    def _send_batches(self, now: float) -> None:
        for batch in self._seats.compose(self._new_id, now):
            if isinstance(batch, float):
                self._alarms.set(batch, _look_again)
                continue
            late = partial(self._batch_late, batch.batch_id)
            self._alarms.set(now + self.config.batch_deadline_s, late, batch.batch_id)
            trace = traceparent(batch.members.values())
            self._out.append(ev.SendBatch(batch.peer_id, batch.batch_id, tuple(batch.items), trace))

    def _verdict_came(self, event: ev.VerdictCame, now: float) -> None:
        seat = self._seats.of(event.batch_id)
        if seat is None:
            self.stale_count += 1
            return
        batch = seat.batches[event.batch_id]
        batch.answered.add(event.verdict.session_id)
        live = batch.members.get(event.verdict.session_id)
        if live is None or live not in self._requests:
            return
        streamed = live.stream is not None and live.session_id in batch.stretches
        if not streamed and not self._awaits_verdict(live):
            return
        if event.verdict.refused:
            self._fail(live, BadRequest("VERIFIER_REFUSED", event.verdict.refused))
        elif streamed:
            self._streams.judged(live, batch, event.verdict, event.forward_us, now)
        else:
            self._rounds.judged(live, event.verdict, batch.trees[live.session_id], event.forward_us, now)

    def _batch_done(self, event: ev.BatchDone, now: float) -> None:
        seat = self._seats.of(event.batch_id)
        if seat is None:
            self.stale_count += 1
            return
        self._alarms.forget(event.batch_id)
        batch, took_s = seat.end(event.batch_id, now)
        if not batch.cancelled:
            self._seats.learn(batch, took_s * 1000)
        for session_id, live in batch.members.items():
            if live.stream is not None and session_id in batch.stretches and live in self._requests:
                self._streams.left_out(live, batch)
            elif self._awaits_verdict(live):
                self.ready(live, now)

    def _awaits_verdict(self, live: Live) -> bool:
        """False once it has been judged, or is gone: a verdict counts once."""
        return live in self._requests and live.phase is Phase.VERIFYING

    def commit(self, live: Live, token_ids: Sequence[int], logprobs: Sequence[ev.TokenLogprob]) -> bool:
        """Appends the target's tokens and tells the gateway; False where the request has ended with them."""
        committed = live.commit(token_ids)
        finish = live.finish_reason()
        kept = tuple(logprobs[: len(committed)])
        self._out.append(live.progress(committed, logprobs=kept, finish=finish, figures=live.figures))
        if finish:
            self._forget(live)
        return not finish

    # -- drafting

    def draft(self, live: Live) -> bool:
        """Asks for a plan for the request; False where nobody can draft for it."""
        left = self._planner.want(live)
        if left:
            self._out.append(ev.CloseSession(left, live.session_id))
        return left is not None

    def undraft(self, live: Live) -> None:
        """Whatever is drafted for the request at this moment is worthless."""
        live.round_id = 0
        self._planner.unwant(live)

    def say(self, command: ev.Command) -> None:
        """Wants something done."""
        self._out.append(command)

    def _send_plans(self, now: float) -> None:
        """One plan per fusion and strategy, for all requests that want to draft."""
        for (fusion, _), wanting in self._planner.wishes().items():
            plan = self._planner.plan(fusion, wanting, self._new_id(), now, len(self.seats))
            for live in [live for live in wanting if live.depth == 0]:
                if live.stream is not None:
                    self._streams.drafted(live, None)
                else:
                    self.ready(live, now)
            if plan is not None:
                late_s = (plan.deadline_ms + self.config.deadline_grace) / 1000
                self._alarms.set(now + late_s, partial(self._round_late, plan.round_id), plan.round_id)
                self._out.append(ev.SendPlan(fusion, plan))

    def _tree_came(self, event: ev.TreeCame, now: float) -> None:
        live, drafted = self._requests.session(event.tree.session_id), event.tree
        if live is not None:
            live.note_drafted(drafted.tree)
        drafting = live is not None and live.phase in (Phase.DRAFTING, Phase.STREAMING)
        if live is None or not drafting or live.round_id != event.round_id:
            self.stale_count += live is None or live.opening_id != event.round_id
            return
        self._planner.note_tree(live, drafted)
        if live.stream is not None:
            self._streams.drafted(live, drafted)
        else:
            self._rounds.drafted(live, drafted.tree if drafted.base_length == len(live.tokens) else EMPTY, now)

    def _plan_done(self, event: ev.PlanDone, now: float) -> None:
        """Whoever got no tree although the plan is done is verified without."""
        self._alarms.forget(event.round_id)
        self._planner.note_done(event.round_id, now)
        self._round_late(event.round_id, now)

    def _tick(self, _event: ev.Tick, now: float) -> None:
        for call in self._alarms.due(now):
            call(now)

    def _round_late(self, round_id: int, now: float) -> None:
        for live in self._planner.end(round_id):
            if live.round_id != round_id or live not in self._requests:
                continue
            if live.stream is not None:
                self._streams.drafted(live, None)
            elif live.phase is Phase.DRAFTING:
                self._rounds.drafted(live, EMPTY, now)

    def _batch_late(self, batch_id: int, now: float) -> None:
        """A verifier that stands still without dying is given up like one that has died; it may come back."""
        seat = self._seats.of(batch_id)
        if seat is not None:
            self._out.append(ev.ResetPeer(seat.peer_id))
            self._verifier_down(ev.VerifierDown(seat.peer_id), now)

    def _request_late(self, session_id: str, now: float) -> None:
        live = self._requests.session(session_id)
        if live is None:
            return
        deadline = live.admission.deadline
        if deadline and now >= deadline:
            message = "the deadline passed before the text was complete; what was sent so far is valid, allow more time"
            self._fail(live, Expired("DEADLINE_EXCEEDED", message))
        elif live.phase is Phase.SEATLESS and now >= live.since + self.config.verifier_wait_s:
            message = f"no verifier has had room for {self.config.verifier_wait_s:g} s; try again later"
            self._fail(live, Unavailable("NO_VERIFIER", message, retry_delay_ms=5000))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def _look_again(_now: float) -> None:
    """Nothing but to let the machine go on: a batch may be due."""
