"""The loop of every request: draft, verify, commit. A machine: `handle(event, now)` returns the commands to carry out.

One round per request is in flight. Requests that draft together are verified together; while one group is verified
another drafts. A draft that misses its deadline is verified with nothing (plain decoding), a verifier that dies is
replaced by any other from the tokens alone: workers hold caches, the scheduler holds the loop (design, G2 and G3).
It does no I/O, reads no clock and draws no random number.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cosine.core import events as ev
from cosine.core import routing, speculation
from cosine.core.errors import BadRequest, Expired, MeshError, Unavailable
from cosine.core.live import Live, Phase
from cosine.core.plan import DraftedTree
from cosine.core.planner import Planner
from cosine.core.seat import Seat
from cosine.core.speculation import Pace
from cosine.core.strategy import parse
from cosine.core.tree import EMPTY, TokenTree, depths


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Bounds and defaults. Times in milliseconds unless the name says otherwise."""

    session_prefix: str = "s"
    default_strategy: str = "cosine"
    live_max: int = 64
    prefill_chunk: int = 256
    batch_rows_max: int = 256
    draft_deadline_min: float = 150.0
    draft_deadline_max: float = 2000.0
    deadline_grace: float = 100.0
    verifier_wait_s: float = 60.0


class Scheduler:
    """The machine. `now` is in seconds on any clock that only goes forward."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.pace = Pace()
        self.stale_count = 0
        self._shared = routing.SharedScores()
        self._live: dict[str, Live] = {}
        self._by_request: dict[str, Live] = {}
        self._seats: dict[str, Seat] = {}
        self._seatless: OrderedDict[str, Live] = OrderedDict()
        self._planner = Planner(config, self.pace)
        self._to_draft: list[Live] = []
        self._alarms: list[tuple[float, int, str]] = []
        self._next_id = 1
        self._out: list[ev.Command] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.RequestCame: self._request_came,
            ev.RequestLeft: self._request_left,
            ev.GatewayDown: self._gateway_down,
            ev.VerifierUp: self._verifier_up,
            ev.VerifierDown: self._verifier_down,
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
        return max(0, self.config.live_max - len(self._live))

    @property
    def live_count(self) -> int:
        return len(self._live)

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Takes one event; returns what must now be done, in order."""
        self._out = []
        first_alarm = self._alarms[0][0] if self._alarms else None
        self._handlers[type(event)](event, now)
        if not isinstance(event, ev.TreeCame | ev.VerdictCame):
            self._send_plans(now)
            self._seat_all(now)
            self._send_batches(now)
        if self._alarms and (isinstance(event, ev.Tick) or self._alarms[0][0] != first_alarm):
            self._out.append(ev.WakeAt(self._alarms[0][0]))
        return self._out

    # -- requests

    def _request_came(self, event: ev.RequestCame, now: float) -> None:
        admission = event.admission
        older = self._by_request.get(admission.request_id)
        if older is not None:
            if older.admission.attempt >= admission.attempt:
                return
            self._forget(older)
        try:
            strategy = parse(admission.strategy, self.config.default_strategy)
        except BadRequest as error:
            self._out.append(ev.Progress(admission.gateway, admission.request_id, admission.attempt, 0, error=error))
            return
        session_id = f"{self.config.session_prefix}-{self._new_id()}"
        live = Live(admission, session_id, strategy, routing.Route(self._shared), list(admission.token_ids), now)
        live.hit_rate = speculation.HitRate(self.pace.hit_rate)
        live.figures.strategy = strategy.name
        self._live[session_id] = live
        self._by_request[admission.request_id] = live
        self._progress(live)
        if live.finish_reason():
            self._finish(live)
            return
        if admission.deadline:
            self._alarm(admission.deadline, session_id)
        self._unseat(live, now)

    def _request_left(self, event: ev.RequestLeft, _now: float) -> None:
        live = self._by_request.get(event.request_id)
        if live is not None and live.admission.attempt == event.attempt:
            self._forget(live)

    def _gateway_down(self, event: ev.GatewayDown, _now: float) -> None:
        for live in [live for live in self._live.values() if live.admission.gateway == event.gateway]:
            self._forget(live)

    def _finish(self, live: Live) -> None:
        self._progress(live, finish=live.finish_reason(), figures=live.figures)
        self._forget(live)

    def _fail(self, live: Live, error: MeshError) -> None:
        self._progress(live, figures=live.figures, error=error)
        self._forget(live)

    def _progress(self, live: Live, token_ids: tuple[int, ...] = (), **more: Any) -> None:
        admission = live.admission
        offset = live.output_count - len(token_ids)
        self._out.append(
            ev.Progress(admission.gateway, admission.request_id, admission.attempt, offset, token_ids, **more)
        )

    def _forget(self, live: Live) -> None:
        """Drops a request and frees what workers hold for it; answers still under way find nobody."""
        self._live.pop(live.session_id, None)
        if self._by_request.get(live.admission.request_id) is live:
            del self._by_request[live.admission.request_id]
        self._seatless.pop(live.session_id, None)
        if live in self._to_draft:
            self._to_draft.remove(live)
        seat = self._seats.get(live.verifier)
        if seat is not None:
            seat.ready.pop(live.session_id, None)
            seat.sessions.discard(live.session_id)
        for peer_id in (live.verifier, live.fusion):
            if peer_id:
                self._out.append(ev.CloseSession(peer_id, live.session_id))

    # -- peers

    def _verifier_up(self, event: ev.VerifierUp, now: float) -> None:
        if event.verifier.peer_id in self._seats:
            self._verifier_down(ev.VerifierDown(event.verifier.peer_id), now)
        self._seats[event.verifier.peer_id] = Seat(event.verifier)

    def _verifier_down(self, event: ev.VerifierDown, now: float) -> None:
        if self._seats.pop(event.peer_id, None) is None:
            return
        for live in self._live.values():
            if live.verifier == event.peer_id:
                live.verifier, live.cached = "", 0
                if live.phase is not Phase.DRAFTING and live not in self._to_draft:
                    self._unseat(live, now)

    def _unseat(self, live: Live, now: float) -> None:
        live.phase, live.since = Phase.SEATLESS, now
        self._seatless[live.session_id] = live
        self._alarm(now + self.config.verifier_wait_s, live.session_id)

    def _fusion_up(self, event: ev.FusionUp, now: float) -> None:
        self._fusion_down(ev.FusionDown(event.peer_id), now)
        self._planner.fusions[event.peer_id] = ()

    def _fusion_down(self, event: ev.FusionDown, now: float) -> None:
        self._planner.fusions.pop(event.peer_id, None)
        for live in list(self._live.values()):
            if live.fusion == event.peer_id:
                live.fusion, live.planned = "", 0
                if live.phase is Phase.DRAFTING:
                    self._drafted(live, EMPTY, now)

    def _drafters_changed(self, event: ev.DraftersChanged, _now: float) -> None:
        if event.fusion in self._planner.fusions:
            self._planner.fusions[event.fusion] = tuple(sorted(event.drafters))

    # -- seats and batches

    def _seat_all(self, now: float) -> None:
        while self._seatless:
            free = [seat for seat in self._seats.values() if seat.has_room]
            if not free:
                return
            _, live = self._seatless.popitem(last=False)
            seat = min(free, key=lambda seat: len(seat.sessions))
            seat.sessions.add(live.session_id)
            live.verifier = seat.facts.peer_id
            self._ready(live, now)

    def _ready(self, live: Live, now: float) -> None:
        seat = self._seats.get(live.verifier)
        if seat is None:
            self._unseat(live, now)
            return
        live.phase = Phase.READY
        seat.ready[live.session_id] = live

    def _send_batches(self, now: float) -> None:
        for peer_id, seat in self._seats.items():
            if not seat.ready or seat.batch:
                continue
            wait_until = self._planner.worth_waiting_until(peer_id, now)
            if wait_until is None:
                self._out.append(seat.compose(self._new_id(), self.config, self.pace, now))
            else:
                self._alarm(wait_until, "wait")

    def _seat_of(self, batch_id: int) -> Seat | None:
        """The verifier that works on a batch; None, counted, where nobody waits for it any more."""
        for seat in self._seats.values():
            if seat.batch and seat.batch_id == batch_id:
                return seat
        self.stale_count += 1
        return None

    def _verdict_came(self, event: ev.VerdictCame, now: float) -> None:
        seat = self._seat_of(event.batch_id)
        live = None if seat is None else seat.batch.get(event.verdict.session_id)
        if seat is not None and live is not None and self._awaits_verdict(live):
            tree = seat.trees[live.session_id]
            self._judged(live, event.verdict, tree, event.forward_us, now)

    def _batch_done(self, event: ev.BatchDone, now: float) -> None:
        seat = self._seat_of(event.batch_id)
        if seat is None:
            return
        left_out = [live for live in seat.clear() if self._awaits_verdict(live)]
        self.pace.verify.note(seat.row_count, (now - seat.sent_at) * 1000)
        for live in left_out:
            self._ready(live, now)

    def _awaits_verdict(self, live: Live) -> bool:
        """False once it has been judged, or is gone: a verdict counts once."""
        return self._live.get(live.session_id) is live and live.phase is Phase.VERIFYING

    def _judged(self, live: Live, verdict: ev.SessionVerdict, tree: TokenTree, forward_us: int, now: float) -> None:
        if verdict.refused:
            self._fail(live, BadRequest("VERIFIER_REFUSED", verdict.refused))
            return
        was_round = live.started
        live.cached = 0 if verdict.missed else verdict.cached_length
        if not verdict.token_ids:
            self._ready(live, now)
            return
        round_ms = (now - live.round_start) * 1000 if was_round else 0.0
        if was_round:
            self._learn(live, verdict, tree)
        live.note_round(verdict.nodes, len(tree), live.draft_ms * 1000, forward_us, round_ms)
        committed = live.commit(verdict.token_ids)
        live.cached = min(live.cached, len(live.tokens) - 1)
        live.tree, live.draft_ms = EMPTY, 0.0
        finish = live.finish_reason()
        self._progress(
            live,
            committed,
            logprobs=verdict.logprobs[: len(committed)],
            finish=finish,
            figures=live.figures,
        )
        if finish:
            self._forget(live)
        else:
            self._next_round(live, now)

    def _learn(self, live: Live, verdict: ev.SessionVerdict, tree: TokenTree) -> None:
        count = len(verdict.token_ids)
        if not tree:
            live.hit_rate.note(0, 0)
            return
        proposers = [tree.proposers[node] for node in verdict.nodes]
        depth = max(depths(tree))
        live.route.note(routing.credits(live.drafters, proposers, depth))
        live.hit_rate.note(len(verdict.nodes), depth)
        self.pace.hit_rate += speculation.SHARED_RATE * (live.hit_rate.value - self.pace.hit_rate)
        if live.promised:
            self.pace.note_promise(live.promised, count)

    # -- drafting

    def _next_round(self, live: Live, now: float) -> None:
        live.round_start = now
        fusion = self._planner.fusion_for(live)
        if not fusion:
            self._ready(live, now)
            return
        if fusion != live.fusion:
            if live.fusion:
                self._out.append(ev.CloseSession(live.fusion, live.session_id))
            live.fusion, live.planned = fusion, 0
        live.phase = Phase.DRAFTING
        self._to_draft.append(live)

    def _send_plans(self, now: float) -> None:
        """One plan per fusion and strategy, for all requests that want to draft."""
        if not self._to_draft:
            return
        groups: dict[tuple[str, str], list[Live]] = {}
        for live in self._to_draft:
            groups.setdefault((live.fusion, live.strategy.name), []).append(live)
        self._to_draft = []
        for (fusion, _), wanting in groups.items():
            plan = self._planner.plan(fusion, wanting, self._new_id(), now)
            for live in wanting:
                if live.depth == 0:
                    self._ready(live, now)
            if plan is not None:
                self._alarm(now + (plan.deadline_ms + self.config.deadline_grace) / 1000, f"round {plan.round_id}")
                self._out.append(ev.SendPlan(fusion, plan))

    def _tree_came(self, event: ev.TreeCame, now: float) -> None:
        live = self._live.get(event.tree.session_id)
        if live is None or live.phase is not Phase.DRAFTING or live.round_id != event.round_id:
            self.stale_count += 1
            return
        self._take_tree(live, event.tree, now)

    def _plan_done(self, event: ev.PlanDone, now: float) -> None:
        """Whoever got no tree although the plan is done is verified without."""
        self._planner.note_done(event.round_id, now)
        self._round_late(event.round_id, now)

    def _take_tree(self, live: Live, drafted: DraftedTree, now: float) -> None:
        if drafted.missed:
            live.planned = 0
        live.figures.exchange_count += drafted.exchange_count
        live.figures.drafter_forward_us += drafted.forward_us
        self._planner.note_tree(live.round_id, drafted.forward_us)
        fits = drafted.base_length == len(live.tokens)
        self._drafted(live, drafted.tree if fits else EMPTY, now)

    def _drafted(self, live: Live, tree: TokenTree, now: float) -> None:
        if live in self._to_draft:
            self._to_draft.remove(live)
        live.tree = tree
        live.draft_ms = (now - live.round_start) * 1000
        self._ready(live, now)

    # -- time

    def _tick(self, _event: ev.Tick, now: float) -> None:
        while self._alarms and self._alarms[0][0] <= now:
            _, _, subject = heapq.heappop(self._alarms)
            if subject.startswith("round "):
                self._round_late(int(subject.removeprefix("round ")), now)
            elif subject in self._live:
                self._request_late(self._live[subject], now)

    def _round_late(self, round_id: int, now: float) -> None:
        for live in self._planner.end(round_id):
            if live.phase is Phase.DRAFTING and live.round_id == round_id and live.session_id in self._live:
                self._drafted(live, EMPTY, now)

    def _request_late(self, live: Live, now: float) -> None:
        deadline = live.admission.deadline
        if deadline and now >= deadline:
            self._fail(live, Expired("DEADLINE", "the request's deadline passed before its text was complete"))
        elif live.phase is Phase.SEATLESS and now >= live.since + self.config.verifier_wait_s:
            message = f"no verifier has had room for {self.config.verifier_wait_s:g} s; try again later"
            self._fail(live, Unavailable("NO_VERIFIER", message, retry_delay_ms=5000))

    def _alarm(self, time: float, subject: str) -> None:
        heapq.heappush(self._alarms, (time, self._new_id(), subject))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1
