"""The loop of every request: draft, verify, commit. A machine: `handle(event, now)` returns the commands to carry out.

One round per request is in flight. Requests that draft together are verified together; while one group is verified
another drafts. A draft that misses its deadline is verified with nothing (plain decoding), a verifier that dies is
replaced by any other from the tokens alone: workers hold caches, the scheduler holds the loop (design, G2 and G3).
It does no I/O, reads no clock and draws no random number.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cosine.core import events as ev
from cosine.core import routing, speculation
from cosine.core.errors import BadRequest, Expired, MeshError, Unavailable
from cosine.core.live import Live, Phase
from cosine.core.plan import DraftedTree, DraftPlan
from cosine.core.speculation import Offer, Pace, Shape
from cosine.core.strategy import Choice, Strategy, named
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


@dataclass(slots=True, eq=False)
class Seat:
    """A verifier, the requests that wait for its next batch, and the batch it is working on."""

    facts: ev.VerifierFacts
    ready: OrderedDict[str, Live] = field(default_factory=OrderedDict)
    batch_id: int = 0
    batch: dict[str, Live] = field(default_factory=dict)
    trees: dict[str, TokenTree] = field(default_factory=dict)
    sent_at: float = 0.0
    row_count: int = 0
    sessions: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Drafting:
    """A plan under way: who drafts, since when, how much, and how long that should take. In a fresh one drafters read
    a whole context first, so its time says nothing."""

    group: list[Live]
    sent_at: float
    work: float
    predicted_ms: float
    fresh: bool


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
        self._fusions: dict[str, tuple[str, ...]] = {}
        self._to_draft: list[Live] = []
        self._rounds: dict[int, Drafting] = {}
        self._alarms: list[tuple[float, int, str]] = []
        self._next_id = 1
        self._trials = speculation.Trials()
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
            strategy = named(admission.strategy, self.config.default_strategy)
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
        self._fusions[event.peer_id] = ()

    def _fusion_down(self, event: ev.FusionDown, now: float) -> None:
        self._fusions.pop(event.peer_id, None)
        for live in list(self._live.values()):
            if live.fusion == event.peer_id:
                live.fusion, live.planned = "", 0
                if live.phase is Phase.DRAFTING:
                    self._drafted(live, EMPTY, now)

    def _drafters_changed(self, event: ev.DraftersChanged, _now: float) -> None:
        if event.fusion in self._fusions:
            self._fusions[event.fusion] = tuple(sorted(event.drafters))

    # -- seats and batches

    def _seat_all(self, now: float) -> None:
        while self._seatless:
            free = [seat for seat in self._seats.values() if len(seat.sessions) < seat.facts.sessions_max]
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
        for seat in self._seats.values():
            if seat.ready and not seat.batch and not self._worth_waiting(seat, now):
                self._send_batch(seat, now)

    def _worth_waiting(self, seat: Seat, now: float) -> bool:
        """True while drafts are due sooner than the fixed part of a forward pass takes: what is verified together pays
        that part once. A draft that is late by as much as it was predicted to take is waited for no longer."""
        for drafting in self._rounds.values():
            if any(live.verifier == seat.facts.peer_id for live in drafting.group):
                due_ms = (drafting.sent_at - now) * 1000 + drafting.predicted_ms
                patience_end = drafting.sent_at + drafting.predicted_ms / 500
                if now < patience_end and due_ms < self.pace.verify.base_ms:
                    self._alarm(patience_end, "wait")
                    return True
        return False

    def _send_batch(self, seat: Seat, now: float) -> None:
        config = self.config
        taken: list[Live] = []
        rows = 0
        for live in seat.ready.values():
            need = min(len(live.tokens) - live.cached, config.prefill_chunk)
            need += 0 if live.strategy.adaptive else len(live.tree)
            if taken and rows + need > config.batch_rows_max:
                break
            taken.append(live)
            rows += need
        trees = self._affordable(taken, rows)
        items = [live.batch_item(tree, config.prefill_chunk) for live, tree in zip(taken, trees, strict=True)]
        for live, tree in zip(taken, trees, strict=True):
            del seat.ready[live.session_id]
            live.phase = Phase.VERIFYING
            seat.batch[live.session_id] = live
            seat.trees[live.session_id] = tree
        seat.batch_id, seat.sent_at = self._new_id(), now
        seat.row_count = sum(len(item.token_ids) + len(item.tree) for item in items)
        self._out.append(ev.SendBatch(seat.facts.peer_id, seat.batch_id, tuple(items), _traceparent(taken)))

    def _affordable(self, taken: Sequence[Live], rows: int) -> list[TokenTree]:
        """Each request's tree, those of adaptive strategies cut to what is worth its rows; `rows` are all others."""
        trees = [live.tree for live in taken]
        chosen = [index for index, live in enumerate(taken) if live.strategy.adaptive and live.tree]
        if chosen:
            spent_ms = sum(taken[index].draft_ms for index in chosen) / len(chosen)
            rows_max = max(0, self.config.batch_rows_max - rows) + len(chosen)
            kept = speculation.spend([trees[index] for index in chosen], self.pace, spent_ms, rows_max)
            for index, tree in zip(chosen, kept, strict=True):
                trees[index] = tree
        return trees

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
            self._judged(live, event.verdict, tree, event.forward_us, len(seat.batch), now)

    def _batch_done(self, event: ev.BatchDone, now: float) -> None:
        seat = self._seat_of(event.batch_id)
        if seat is None:
            return
        left_out = [live for live in seat.batch.values() if self._awaits_verdict(live)]
        seat.batch, seat.trees = {}, {}
        self.pace.verify.note(seat.row_count, (now - seat.sent_at) * 1000)
        for live in left_out:
            self._ready(live, now)

    def _awaits_verdict(self, live: Live) -> bool:
        """False once it has been judged, or is gone: a verdict counts once."""
        return self._live.get(live.session_id) is live and live.phase is Phase.VERIFYING

    def _judged(
        self, live: Live, verdict: ev.SessionVerdict, tree: TokenTree, forward_us: int, batch_size: int, now: float
    ) -> None:
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
            self._learn(live, verdict, tree, round_ms, batch_size)
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

    def _learn(self, live: Live, verdict: ev.SessionVerdict, tree: TokenTree, round_ms: float, batch_size: int) -> None:
        count = len(verdict.token_ids)
        self.pace.note_round(count, round_ms)
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
        if self._wants_draft(live):
            live.phase = Phase.DRAFTING
            self._to_draft.append(live)
        else:
            self._ready(live, now)

    def _wants_draft(self, live: Live) -> bool:
        strategy = live.strategy
        if strategy.choice is Choice.NONE or live.admission.max_new_tokens - live.output_count <= 1:
            return False
        if live.fusion not in self._fusions or not self._fusions[live.fusion]:
            live.fusion = next((name for name, drafters in self._fusions.items() if drafters), "")
            live.planned = 0
        return bool(live.fusion)

    def _choose(self, live: Live, drafters: tuple[str, ...], count: int) -> tuple[str, ...]:
        strategy = live.strategy
        if strategy.choice is Choice.ROUTED:
            return live.route.choose(drafters, count, strategy.first_count)
        return drafters[: 1 if strategy.choice is Choice.FIRST else min(64, count)]

    def _send_plans(self, now: float) -> None:
        """One plan per fusion and strategy, for all requests that want to draft."""
        if not self._to_draft:
            return
        groups: dict[tuple[str, str], list[Live]] = {}
        for live in self._to_draft:
            groups.setdefault((live.fusion, live.strategy.name), []).append(live)
        self._to_draft = []
        for (fusion, _), group in groups.items():
            self._send_plan(fusion, group, now)

    def _send_plan(self, fusion: str, wanting: list[Live], now: float) -> None:
        strategy = wanting[0].strategy
        offer = self._offer(strategy, wanting, len(self._fusions[fusion]))
        for live, depth, promised in zip(wanting, offer.depths, offer.promised, strict=True):
            live.depth, live.promised = depth, promised
            if depth == 0:
                self._ready(live, now)
        group = [live for live in wanting if live.depth]
        if not group:
            return
        for live in group:
            live.drafters = self._choose(live, self._fusions[fusion], offer.drafter_count)
        work = self._work(group, offer.beam)
        depth = max(live.depth for live in group)
        value_min = speculation.value_min(self.pace, work, depth, len(group)) if strategy.adaptive else 0.0
        items = tuple(live.plan_item(offer.beam, value_min) for live in group)
        fresh = any(live.planned == 0 for live in group)
        deadline_ms = self._draft_deadline_ms(fresh)
        round_id = self._new_id()
        for live in group:
            live.round_id, live.planned = round_id, len(live.tokens)
        self._rounds[round_id] = Drafting(group, now, work, self.pace.draft.predict(work), fresh)
        self._alarm(now + (deadline_ms + self.config.deadline_grace) / 1000, f"round {round_id}")
        trace = _traceparent(group)
        plan = DraftPlan(round_id, strategy.cooperation, items, strategy.fusion_interval, deadline_ms, trace)
        self._out.append(ev.SendPlan(fusion, plan))

    def _offer(self, strategy: Strategy, wanting: Sequence[Live], drafter_count: int) -> Offer:
        """How much to draft for each of a plan's requests; depth 0 is plain decoding."""
        full = Shape(strategy.depth, strategy.drafter_count, strategy.beam)
        if not strategy.adaptive:
            return speculation.fixed_offer(full, len(wanting))
        rates = [live.hit_rate.value for live in wanting]
        offer = speculation.best_offer(full, self.pace, rates, drafter_count)
        return offer if self._trials.allow(offer.gain) else replace(offer, depths=(0,) * len(wanting))

    @staticmethod
    def _work(group: Sequence[Live], beam: int) -> float:
        """Size of a plan's drafting: steps, and what each drafter has not read yet."""
        passes: dict[str, int] = {}
        rows = 0
        for live in group:
            rows += len(live.drafters) * (beam * live.depth + len(live.tokens) - live.planned)
            for name in live.drafters:
                passes[name] = max(live.depth, passes.get(name, 0))
        return speculation.draft_work(rows, sum(passes.values()))

    def _draft_deadline_ms(self, fresh: bool) -> float:
        """Several times what drafting usually takes; a session's first plan may have a long context to read."""
        config = self.config
        if fresh:
            return config.draft_deadline_max
        usual = self.pace.draft.predict(100)
        return min(config.draft_deadline_max, max(config.draft_deadline_min, 8 * usual))

    def _tree_came(self, event: ev.TreeCame, now: float) -> None:
        live = self._live.get(event.tree.session_id)
        if live is None or live.phase is not Phase.DRAFTING or live.round_id != event.round_id:
            self.stale_count += 1
            return
        self._take_tree(live, event.tree, now)

    def _plan_done(self, event: ev.PlanDone, now: float) -> None:
        """Whoever got no tree although the plan is done is verified without."""
        drafting = self._rounds.get(event.round_id)
        if drafting is not None and drafting.work and not drafting.fresh:
            self.pace.draft.note(drafting.work, (now - drafting.sent_at) * 1000)
        self._round_late(event.round_id, now)

    def _take_tree(self, live: Live, drafted: DraftedTree, now: float) -> None:
        if drafted.missed:
            live.planned = 0
        live.figures.exchange_count += drafted.exchange_count
        live.figures.drafter_forward_us += drafted.forward_us
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
        drafting = self._rounds.pop(round_id, None)
        for live in () if drafting is None else drafting.group:
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


def _traceparent(group: Sequence[Live]) -> str:
    """The trace a message of several requests belongs to: the first that is sampled."""
    return next((live.admission.traceparent for live in group if live.admission.traceparent), "")
