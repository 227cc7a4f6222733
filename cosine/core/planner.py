"""Draft plans: for whom, by which drafters, how deep, and what came of the plans under way. Part of the scheduler.

It knows fusions, drafters and plans; it does not know verifiers, gateways or alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cosine.core import speculation
from cosine.core.live import Live
from cosine.core.plan import DraftPlan
from cosine.core.speculation import Offer, Pace, Shape
from cosine.core.strategy import Choice, Strategy

USUAL_WORK = 100.0
LATE_FACTOR = 8.0
PATIENCE = 2.0
PROPOSER_BITS = 64


class DraftDeadlines(Protocol):
    """The part of the scheduler's configuration that concerns plans, in milliseconds."""

    @property
    def draft_deadline_min(self) -> float: ...

    @property
    def draft_deadline_max(self) -> float: ...


@dataclass(slots=True)
class Drafting:
    """A plan under way: who drafts, since when, how much, and how long that should take. In a fresh one drafters read
    a whole context first, so its time says nothing."""

    group: list[Live]
    sent_at: float
    work: float
    predicted_ms: float
    fresh: bool
    spent_ms: float = 0.0


class Planner:
    """Plans for requests that want to draft; `fusions` maps each fusion that is up to its drafters' names."""

    def __init__(self, deadlines: DraftDeadlines, pace: Pace) -> None:
        self.fusions: dict[str, tuple[str, ...]] = {}
        self._deadlines = deadlines
        self._pace = pace
        self._trials = speculation.Trials()
        self._under_way: dict[int, Drafting] = {}

    def fusion_for(self, live: Live) -> str:
        """The fusion that drafts for a request next: its own while that has drafters, else any that has, else ""."""
        strategy = live.strategy
        if strategy.choice is Choice.NONE or live.admission.max_new_tokens - live.output_count <= 1:
            return ""
        if self.fusions.get(live.fusion):
            return live.fusion
        return next((name for name, drafters in self.fusions.items() if drafters), "")

    def plan(self, fusion: str, wanting: Sequence[Live], round_id: int, now: float) -> DraftPlan | None:
        """A plan for requests of one strategy, or None. Requests it leaves out have `depth` 0: they decode plainly."""
        strategy = wanting[0].strategy
        offer = self._offer(strategy, wanting, len(self.fusions[fusion]))
        for live, depth, promised in zip(wanting, offer.depths, offer.promised, strict=True):
            live.depth, live.promised = depth, promised
        group = [live for live in wanting if live.depth]
        if not group:
            return None
        for live in group:
            live.drafters = self._choose(live, self.fusions[fusion], offer.drafter_count)
        work = _work(group, offer.beam)
        items = tuple(live.plan_item(offer.beam, offer.value_min) for live in group)
        fresh = any(live.planned == 0 for live in group)
        for live in group:
            live.round_id, live.planned = round_id, len(live.tokens)
        self._under_way[round_id] = Drafting(group, now, work, self._pace.draft.predict(work), fresh)
        deadline_ms = self._deadline_ms(fresh)
        return DraftPlan(
            round_id, strategy.cooperation, items, strategy.fusion_interval, deadline_ms, traceparent(group)
        )

    def note_tree(self, round_id: int, forward_us: int) -> None:
        """A tree of a plan has come: what its drafters spent on it, shared with the plan's other trees."""
        drafting = self._under_way.get(round_id)
        if drafting is not None:
            drafting.spent_ms = max(drafting.spent_ms, forward_us / 1000)

    def note_done(self, round_id: int, now: float) -> None:
        """All trees of a plan have come: learn how long that takes."""
        drafting = self._under_way.get(round_id)
        if drafting is not None and drafting.work and not drafting.fresh:
            self._pace.draft.note(drafting.work, (now - drafting.sent_at) * 1000, drafting.spent_ms)

    def end(self, round_id: int) -> list[Live]:
        """Forgets a plan, done or late; its requests."""
        drafting = self._under_way.pop(round_id, None)
        return [] if drafting is None else drafting.group

    def worth_waiting_until(self, verifier: str, now: float) -> float | None:
        """When a verifier should wait no longer for drafts under way; None where it should not wait at all.

        Waiting pays while drafts are due sooner than the fixed part of a forward pass takes: what is verified together
        pays that part once. A draft that is late by as much as it was predicted to take is waited for no longer.
        """
        for drafting in self._under_way.values():
            if any(live.verifier == verifier for live in drafting.group):
                due_ms = (drafting.sent_at - now) * 1000 + drafting.predicted_ms
                patience_end = drafting.sent_at + PATIENCE * drafting.predicted_ms / 1000
                if now < patience_end and due_ms < self._pace.verify.base_ms:
                    return patience_end
        return None

    def _offer(self, strategy: Strategy, wanting: Sequence[Live], drafter_count: int) -> Offer:
        full = Shape(strategy.depth, strategy.drafter_count, strategy.beam)
        if not strategy.adaptive:
            return speculation.fixed_offer(full, len(wanting))
        rates = [live.hit_rate.value for live in wanting]
        offer = speculation.best_offer(full, self._pace, rates, drafter_count)
        return offer if self._trials.allow(offer.gain) else replace(offer, depths=(0,) * len(wanting))

    @staticmethod
    def _choose(live: Live, drafters: tuple[str, ...], count: int) -> tuple[str, ...]:
        strategy = live.strategy
        if strategy.choice is Choice.ROUTED:
            return live.route.choose(drafters, count, strategy.first_count)
        return drafters[: 1 if strategy.choice is Choice.FIRST else min(PROPOSER_BITS, count)]

    def _deadline_ms(self, fresh: bool) -> float:
        """Several times what drafting usually takes; a session's first plan may have a long context to read."""
        least, most = self._deadlines.draft_deadline_min, self._deadlines.draft_deadline_max
        return most if fresh else min(most, max(least, LATE_FACTOR * self._pace.draft.predict(USUAL_WORK)))


def _work(group: Iterable[Live], beam: int) -> float:
    """Size of a plan's drafting: steps, and what each drafter has not read yet."""
    passes: dict[str, int] = {}
    rows = 0
    for live in group:
        rows += len(live.drafters) * (beam * live.depth + len(live.tokens) - live.planned)
        for name in live.drafters:
            passes[name] = max(live.depth, passes.get(name, 0))
    return speculation.draft_work(rows, sum(passes.values()))


def traceparent(group: Iterable[Live]) -> str:
    """The trace a message of several requests belongs to: the first that is sampled."""
    return next((live.admission.traceparent for live in group if live.admission.traceparent), "")
