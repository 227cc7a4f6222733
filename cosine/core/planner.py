"""Draft plans: for whom, by which drafters, how deep, and what came of the plans under way. Part of the scheduler.

It knows fusions, drafters and plans; it does not know verifiers, gateways or alarms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core.bandit import assign
from cosine.core.config import SchedulerConfig
from cosine.core.events import DrafterFacts, SendPlan
from cosine.core.goodput import REST
from cosine.core.live import Live
from cosine.core.offers import Offers
from cosine.core.pace import Pace, draft_load
from cosine.core.placement import Placement
from cosine.core.plan import Cooperation, DraftedTree, DraftPlan, PlanItem
from cosine.core.seat import Seat
from cosine.core.strategy import Choice
from cosine.core.timing import DraftLoad, DraftModel
from cosine.core.tree import depths

LATE_FACTOR = 8.0
LATE_SHARE = 0.25  # of the fixed part of a forward pass
PROPOSER_BITS = 64
NAMES_MAX = 256  # of peers that are gone, and of models
CROWDING = 2.0  # times its even share that a drafter takes under a bandit

Asked = tuple[tuple[str, ...], int, int]  # drafters, steps, tokens they have not read


@dataclass(slots=True)
class Drafting:
    """A plan under way: who drafts, since when, how much, and how long that should take. `run` are the steps that
    sessions whose trees have come really took. In a fresh plan drafters read a whole context first, so its time says
    nothing."""

    group: list[Live]
    sent_at: float
    asked: Mapping[str, Asked]
    fusion_interval: int
    beam: int
    predicted_ms: float
    fresh: bool
    pass_count: float = 0.0
    spent_ms: float = 0.0
    run: dict[str, int] = field(default_factory=dict)

    def load(self) -> DraftLoad:
        """What the drafters had to do: what they did where that is known, else all that was asked."""
        sessions = []
        for session_id, (drafters, depth, unread_count) in self.asked.items():
            steps = self.run.get(session_id, depth)
            sessions.append((drafters, steps, self.beam * steps + unread_count if steps else 0))
        return draft_load(sessions, self.fusion_interval)


class Planner:
    """Plans for requests that want to draft; `fusions` maps each fusion that is up to its drafters' names."""

    def __init__(self, config: SchedulerConfig, pace: Pace) -> None:
        self.fusions: dict[str, Placement] = {}
        self._config = config
        self._pace = pace
        self.offers = Offers(pace)
        self._known: dict[str, Sequence[DrafterFacts]] = {}
        self._under_way: dict[int, Drafting] = {}
        self._wanting: list[Live] = []
        self._opening: list[Live] = []
        self.drafters_seen = 0
        self._gone_peers: dict[str, None] = {}
        self._gone_models: dict[str, None] = {}

    def fusion_up(self, fusion: str) -> None:
        """A fusion came; it will say whom it can plan with."""
        self.fusions[fusion] = Placement(self._config.session_prefix)

    def fusion_down(self, fusion: str) -> None:
        """A fusion is gone, and whom it could plan with."""
        self.fusions.pop(fusion, None)
        self._know(fusion, ())

    def drafters_changed(self, fusion: str, drafters: Sequence[DrafterFacts]) -> None:
        """A fusion that is up says whom it can plan with."""
        measured = [facts for facts in drafters if facts.base_ms]
        if measured and not self.drafters_seen:
            slowest = max(measured, key=lambda facts: facts.base_ms)
            self._pace.drafting = DraftModel.seeded(slowest.base_ms, slowest.row_ms)
        self._know(fusion, drafters)
        self.fusions[fusion].drafters_changed(drafters)
        self.drafters_seen = max(self.drafters_seen, len(self.fusions[fusion].models))

    @property
    def names_seen(self) -> set[str]:
        """What a request may call a drafter by: peers that are up, their models, and the last of both to have gone."""
        up = {name for known in self._known.values() for facts in known for name in (facts.peer_id, facts.model_id)}
        return (up - {""}) | self._gone_peers.keys() | self._gone_models.keys()

    def _know(self, fusion: str, drafters: Sequence[DrafterFacts]) -> None:
        """These and no others are a fusion's."""
        up = {(facts.peer_id, facts.model_id) for facts in drafters}
        for facts in self._known.pop(fusion, ()):
            if (facts.peer_id, facts.model_id) not in up:
                _remember(self._gone_peers, facts.peer_id)
                _remember(self._gone_models, facts.model_id)
        if drafters:
            self._known[fusion] = drafters
        known = (facts for drafters in self._known.values() for facts in drafters)
        self._pace.note_drafters({facts.peer_id: facts.processor for facts in known})

    def forget(self, live: Live) -> None:
        """A request is over, or drafts elsewhere from now on."""
        self.unwant(live)
        if live in self._opening:
            self._opening.remove(live)
        placement = self.fusions.get(live.fusion)
        if placement is not None:
            placement.release(live.session_id)

    def want(self, live: Live) -> str | None:
        """The request wants to be in the next plan. The fusion that it leaves for it ("" for none), or None where
        nobody can draft for it."""
        fusion = self.fusion_for(live)
        if not fusion:
            return None
        left = live.fusion if live.fusion != fusion else ""
        self._join(live, fusion)
        self._wanting.append(live)
        return left

    def _join(self, live: Live, fusion: str) -> None:
        """From now on that fusion drafts for a request."""
        if live.fusion != fusion:
            self.forget(live)
            live.fusion, live.planned = fusion, 0
            self.fusions[fusion].join(live.session_id)

    def seated(self, live: Live) -> None:
        """A request has a verifier, which will read its context: drafters that go on while it works may read it too,
        and begin."""
        fusion = self.fusion_for(live)
        if fusion and live.fusion in ("", fusion) and not live.planned and self.offers.lookahead(live.strategy):
            self._join(live, fusion)
            self._opening.append(live)

    def openings(self, new_id: Callable[[], int]) -> list[SendPlan]:
        """Plans for requests that have sat down. Nobody waits for them: their trees are empty, and grow from then on,
        so that the first verdict finds something."""
        opening, self._opening = self._opening, []
        return [
            SendPlan(fusion, self._opened(group, self.fusions[fusion], new_id()))
            for (fusion, _), group in _by_plan(opening).items()
        ]

    def _opened(self, group: Sequence[Live], placement: Placement, round_id: int) -> DraftPlan:
        strategy = group[0].strategy
        self._choose(group, placement, strategy.drafter_count)
        items = tuple(live.plan_item(strategy.width, strategy.beam, REST) for live in group)
        for live in group:
            live.opening_id, live.planned = round_id, len(live.tokens)
        return self._message(round_id, group, items, self._config.draft_deadline_max)

    def _message(
        self, round_id: int, group: Sequence[Live], items: tuple[PlanItem, ...], deadline_ms: float
    ) -> DraftPlan:
        """What fusion is told of a plan."""
        strategy = group[0].strategy
        return DraftPlan(
            round_id,
            strategy.cooperation,
            items,
            strategy.fusion_interval,
            deadline_ms,
            traceparent(group),
            strategy.reading,
            self.offers.lookahead(strategy),
            strategy.calibrated and strategy.runs == 1,  # what streamed plans append is mostly not judged yet
            strategy.weighs_tokens,
        )

    def unwant(self, live: Live) -> None:
        """The request wants no plan after all."""
        if live in self._wanting:
            self._wanting.remove(live)

    def wanted_by(self, live: Live) -> bool:
        """True while the request waits for the next plan."""
        return live in self._wanting

    def wishes(self) -> dict[tuple[str, str], list[Live]]:
        """Who wants a plan, by fusion and strategy; asked once, forgotten then."""
        wanting, self._wanting = self._wanting, []
        return _by_plan(wanting)

    def fusion_for(self, live: Live) -> str:
        """The fusion that drafts for a request next: its own while that has drafters, else of those that have the one
        with the fewest requests, else ""."""
        strategy = live.strategy
        if strategy.choice is Choice.NONE or live.left <= 1:
            return ""
        able = [name for name, placement in self.fusions.items() if placement.models]
        if live.fusion in able:
            return live.fusion
        return min(able, key=lambda name: self.fusions[name].request_count, default="")

    def plan(
        self, fusion: str, wanting: Sequence[Live], round_id: int, now: float, verifier_count: int
    ) -> DraftPlan | None:
        """A plan for requests of one strategy, or None. Requests it leaves out have `depth` 0: they decode plainly."""
        strategy, placement = wanting[0].strategy, self.fusions[fusion]
        if not placement.models:
            for live in wanting:
                live.depth = 0
            return None
        offer = self.offers.make(wanting, len(placement.models), verifier_count, self._config.batch_rows_max)
        for index, live in enumerate(wanting):
            live.offer, live.depth, live.promised = offer, offer.depths[index], offer.promised[index]
            live.node_budget = offer.node_budgets[index]
            live.late, live.rested = False, live.depth > 0 and offer.rests
        group = [live for live in wanting if live.depth]
        if not group:
            return None
        self._choose(group, placement, offer.drafter_count)
        interval = strategy.fusion_interval if strategy.cooperation is Cooperation.FUSED else 0
        asked = {live.session_id: (live.drafters, live.depth, len(live.sequence) - live.planned) for live in group}
        items = tuple(live.plan_item(offer.width, offer.beam, offer.value_min) for live in group)
        fresh = any(live.unread for live in group)
        if offer.rests:
            self._pace.note_rest()
        for live in group:
            live.read_first = live.unread
            live.round_id, live.planned = round_id, len(live.sequence)
        pass_count = 0.0 if offer.rests else offer.pass_count  # a rest says nothing of where paths end
        drafting = Drafting(group, now, asked, interval, offer.beam, 0.0, fresh, pass_count)
        drafting.predicted_ms = (
            self._pace.drafting.exchange_ms if offer.rests else self._pace.drafting_ms(drafting.load())
        )
        self._under_way[round_id] = drafting
        return self._message(round_id, group, items, self._deadline_ms(drafting))

    def note_tree(self, live: Live, drafted: DraftedTree) -> None:
        """A tree of a plan has come: what its drafters spent on it, shared with the plan's other trees, and what of it
        had been drafted while the last verdict was out."""
        if drafted.missed:
            live.planned = 0
        live.figures.exchange_count += drafted.exchange_count
        live.figures.drafter_forward_us += drafted.forward_us
        drafting = self._under_way.get(live.round_id)
        if drafting is not None:
            drafting.spent_ms = max(drafting.spent_ms, drafted.forward_us / 1000)
            deepest = max(depths(drafted.tree), default=0)
            drafting.run[live.session_id] = max(1, deepest - drafted.kept_depth) if drafted.exchange_count else 0
        if live.strategy.lookahead:
            self._pace.note_head_start(drafted.kept_depth, None if live.read_first else live.bare)
            live.late = drafted.exchange_count > 0 and not drafted.kept_depth and not live.read_first

    def note_done(self, round_id: int, now: float) -> None:
        """All trees of a plan have come: learn how long that takes."""
        drafting = self._under_way.get(round_id)
        if drafting is not None and not drafting.fresh:
            took_ms, load = (now - drafting.sent_at) * 1000, drafting.load()
            self._pace.drafting.note(load, took_ms, drafting.spent_ms)
            self._pace.note_passes(drafting.pass_count, load.pass_count)

    def end(self, round_id: int) -> list[Live]:
        """Forgets a plan, done or late; its requests."""
        drafting = self._under_way.pop(round_id, None)
        return [] if drafting is None else drafting.group

    def worth_waiting_until(self, seat: Seat, first: Live, now: float) -> float | None:
        """When a verifier where `first` waits should wait no longer for drafts under way; None where it should not wait
        at all.

        Waiting pays while drafts are due sooner than the fixed part of a forward pass takes: what is verified together
        pays that part once. A draft that is late by as much as it was predicted to take, and by a quarter of that part,
        is waited for no longer.
        """
        base_ms = self._pace.verify.base_ms
        for drafting in self._under_way.values():
            due = (live for live in drafting.group if live.verifier == seat.peer_id and live.stream is None)
            if any(seat.together(first, live) for live in due):
                due_ms = (drafting.sent_at - now) * 1000 + drafting.predicted_ms
                late_ms = max(drafting.predicted_ms, LATE_SHARE * base_ms)
                patience_end = drafting.sent_at + (drafting.predicted_ms + late_ms) / 1000
                if now < patience_end and due_ms < base_ms:
                    return patience_end
        return None

    def _choose(self, group: Sequence[Live], placement: Placement, count: int) -> None:
        """Every request of a plan gets its drafters: models first, then the peers that serve them."""
        models = placement.models
        if group[0].strategy.choice is Choice.BANDIT:
            room = max(1, math.ceil(CROWDING * len(group) / len(models)))
            matched = assign([live.bandit for live in group], models, [room] * len(models))
            for live, model in zip(group, matched, strict=True):
                live.models = (model or models[0],)
        else:
            for live in group:
                live.models = _models_for(live, placement, count)
        for live in group:
            live.drafters = tuple(placement.assign(live.session_id, model) for model in live.models)

    def _deadline_ms(self, drafting: Drafting) -> float:
        """Several times what drafting should take; a session's first plan may have a long context to read."""
        least, most = self._config.draft_deadline_min, self._config.draft_deadline_max
        return most if drafting.fresh else min(most, max(least, LATE_FACTOR * drafting.predicted_ms))


def _by_plan(lives: Iterable[Live]) -> dict[tuple[str, str], list[Live]]:
    """Who can be in one plan: those of one fusion and one strategy."""
    groups: dict[tuple[str, str], list[Live]] = {}
    for live in lives:
        groups.setdefault((live.fusion, live.strategy.name), []).append(live)
    return groups


def _remember(names: dict[str, None], name: str) -> None:
    """Of very many names the last to be noted are kept."""
    if name:
        names.pop(name, None)
        names[name] = None
        if len(names) > NAMES_MAX:
            del names[next(iter(names))]


def _models_for(live: Live, placement: Placement, count: int) -> tuple[str, ...]:
    strategy, models = live.strategy, placement.models
    if strategy.choice is Choice.ROUTED:
        return live.route.choose(models, count, strategy.first_count)
    if strategy.choice is Choice.FIRST:
        return (placement.model_named(strategy.drafter) or models[0],)
    return models[: min(PROPOSER_BITS, count)]


def traceparent(group: Iterable[Live]) -> str:
    """The trace a message of several requests belongs to: the first that is sampled."""
    return next((live.admission.traceparent for live in group if live.admission.traceparent), "")
