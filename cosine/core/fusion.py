"""Confidence-based token fusion: steps the drafters of a plan and merges what they guess (CoSine section on fusion).

`Fusion` is a machine: plans, candidates, losses and the passing of time go in, steps for drafters and finished trees
come out. It owns the sessions' tokens, what each drafter holds of them, and each drafter's calibration. It does no I/O.

- SINGLE and MERGED take one exchange: every drafter grows its own tree, the trees become one. VOTED likewise, and of
  the one tree only the path of the heaviest votes is delivered. The node budget bounds what is delivered, not what is
  voted on.
- FUSED takes an exchange every `fusion_interval` tokens: the token of the highest calibrated confidence extends the
  backbone, all drafters go on from there (the paper's "replace" reading) or from there and from their own token
  ("fork"), and the other candidates hang beside it.

With `lookahead` drafters go on growing delivered trees, most valuable ends first, while the verdict is out. The next
plan of a session brings the verdict: what remains of its tree below the committed tokens is where drafting starts, and
steps that serve nobody any more are cancelled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core.calibration import Calibration, Consent, Record
from cosine.core.growth import AHEAD_STEPS, Asked, Estimate, Growth, Session
from cosine.core.plan import (
    CancelSteps,
    CloseSessions,
    Cooperation,
    DraftedTree,
    DraftPlan,
    Guess,
    PlanItem,
    Reading,
    Step,
    Trees,
)
from cosine.core.tree import ROOT
from cosine.core.voting import Votes

CANCELLED_MAX = 4096
DRAFTERS_MAX = 1024
MISSES_MAX = 3
REST_S = 5.0
AHEAD_NODES_ENOUGH = 384

Command = Step | Trees | CancelSteps | CloseSessions


@dataclass(frozen=True, slots=True)
class Question:
    """What one drafter was asked in one exchange, by session."""

    drafter: str
    asked: Mapping[str, Asked]


@dataclass(slots=True)
class Round:
    """A plan on its way: who still owes an answer in this exchange, by step id. `ahead` says that its trees have been
    delivered and go on growing while their verdict is out."""

    plan: DraftPlan
    deadline: float
    growths: list[Growth]
    missed: list[DraftedTree] = field(default_factory=list)
    waiting: dict[int, Question] = field(default_factory=dict)
    slowest_us: int = 0
    ahead: bool = False


class Fusion:
    """The machine. `now` is in seconds on any clock that only goes forward."""

    def __init__(self, sessions_max: int = 1024) -> None:
        self._sessions_max = sessions_max
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._holders: dict[str, set[str]] = {}
        self._drafters: set[str] = set()
        self._calibrations: dict[str, Calibration] = {}
        self._consent = Consent()
        self._votes = Votes()
        self._rounds: dict[int, Round] = {}
        self._steps: dict[int, int] = {}
        self._cancelled: OrderedDict[int, None] = OrderedDict()
        self._misses: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        self._next_step = 1
        self.stale_count = 0

    def drafter_up(self, drafter: str) -> None:
        """A drafter came, or came back with an empty cache."""
        self._drafters.add(drafter)
        self._misses.pop(drafter, None)
        self._resting.pop(drafter, None)
        for session in self._sessions.values():
            session.known.pop(drafter, None)

    def drafter_draining(self, drafter: str) -> None:
        """A drafter takes nothing new; what it was asked it still answers."""
        self._drafters.discard(drafter)

    def drafter_down(self, drafter: str, now: float) -> list[Command]:
        """A drafter is gone; rounds that wait for it go on without it. What its confidences are worth is remembered, as
        long as not very many others have been judged since."""
        self._drafters.discard(drafter)
        self._misses.pop(drafter, None)
        self._resting.pop(drafter, None)
        commands: list[Command] = []
        for round_ in list(self._rounds.values()):
            for step_id, question in list(round_.waiting.items()):
                if question.drafter == drafter:
                    commands += self._answered(round_, step_id, now)
        return commands

    def plan(self, plan: DraftPlan, now: float) -> list[Command]:
        """A new plan. Its first steps come back, or at once its trees where no drafter can help (or needs to)."""
        growths: list[Growth] = []
        missed: list[DraftedTree] = []
        commands = self._abandon({item.session_id for item in plan.items})
        for item in plan.items:
            session = self._advance(item, plan)
            if session is None:
                missed.append(DraftedTree(item.session_id, item.base_length, missed=True))
            else:
                growth = Growth(item, session, plan.reading is Reading.FORK, self._factors(plan, item))
                growth.adopt()
                growths.append(growth)
        round_ = Round(plan, now + plan.deadline_ms / 1000, growths, missed)
        self._rounds[plan.round_id] = round_
        return commands + self._exchange(round_, now)

    def candidates(self, step_id: int, guesses: Iterable[Guess], forward_us: int, now: float) -> list[Command]:
        """A drafter's answer. Answers to steps that nobody waits for any more are dropped; those that are late or that
        nobody asked for are counted."""
        round_ = self._rounds.get(self._steps.get(step_id, -1))
        if round_ is None or step_id not in round_.waiting:
            self.stale_count += step_id not in self._cancelled
            self._cancelled.pop(step_id, None)
            return []
        question = round_.waiting[step_id]
        self._misses.pop(question.drafter, None)
        round_.slowest_us = max(round_.slowest_us, forward_us)
        growths = {growth.item.session_id: growth for growth in round_.growths}
        retry: dict[str, Asked] = {}
        for guess in guesses:
            growth, asked = growths.get(guess.session_id), question.asked.get(guess.session_id)
            if growth is not None and asked is not None and not self._take(growth, question.drafter, asked, guess):
                retry[guess.session_id] = growth.ask_again(asked)
        if not retry:
            return self._answered(round_, step_id, now)
        self._forget(round_, step_id)
        return [self._step(round_, question.drafter, retry)]

    def tick(self, now: float) -> list[Command]:
        """Completes plans whose deadline has passed with what has arrived; who is late drops it and takes up what comes
        next. For what grows on after delivery nobody waits."""
        commands: list[Command] = []
        for round_ in [entry for entry in self._rounds.values() if not entry.ahead and entry.deadline <= now]:
            for step_id, question in list(round_.waiting.items()):
                self._miss(question.drafter, now)
                self._forget(round_, step_id)
                commands.append(CancelSteps(question.drafter, (step_id,)))
            self._absorb_all(round_)
            commands += self._finish(round_, now)
        return commands

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min((round_.deadline for round_ in self._rounds.values() if not round_.ahead), default=None)

    def close(self, session_ids: Iterable[str]) -> list[Command]:
        """Forgets sessions; a plan that works on one goes on without it. Who was ever asked of one is told: also a
        drafter that has come back since, and of a session that had to make room here."""
        gone = dict.fromkeys(session_ids)
        commands = self._abandon(set(gone))
        closings: dict[str, list[str]] = {}
        for session_id in gone:
            self._sessions.pop(session_id, None)
            for drafter in self._holders.pop(session_id, ()):
                closings.setdefault(drafter, []).append(session_id)
        return [*commands, *(CloseSessions(drafter, tuple(ended)) for drafter, ended in sorted(closings.items()))]

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    # -- sessions

    def _advance(self, item: PlanItem, plan: DraftPlan) -> Session | None:
        """Brings a session to the plan's committed tokens and judges its last tree; None where tokens are missing."""
        session = self._sessions.pop(item.session_id, None) or Session()
        if item.base_length > len(session.tokens):
            return None
        speculated = session.tokens + session.backbone
        held = len(session.tokens)
        if item.base_length == held and (plan.calibrated or plan.cooperation is Cooperation.VOTED):
            self._judge(session, item.token_ids, plan.calibrated)
        session.tokens = session.tokens[: item.base_length] + list(item.token_ids)
        agreed = _common_prefix(speculated, session.tokens, item.base_length)
        session.known = {drafter: min(length, agreed) for drafter, length in session.known.items()}
        if plan.lookahead and item.base_length == held:
            session.go_on(item.token_ids)
        else:
            session.restart()
        self._sessions[item.session_id] = session
        while len(self._sessions) > self._sessions_max:
            self._sessions.popitem(last=False)
        return session

    def _judge(self, session: Session, committed: Sequence[int], calibrated: bool) -> None:
        """Learns from the target's picks: at every node of the committed path the right child is known now. That is
        always what votes weigh, and where `calibrated` what confidences are worth."""
        grower, node = session.grower, ROOT
        scores: dict[str, list[bool]] = {}
        for token in committed:
            for proposals in session.proposals:
                for proposed, raw in proposals.below(node):
                    hit = proposed == token
                    scores.setdefault(proposals.drafter, []).append(hit)
                    if calibrated:
                        self._calibration(proposals.drafter).note(raw, hit)
                        session.records.setdefault(proposals.drafter, Record()).note(proposals.worth(raw), hit)
            if calibrated:
                for kid in grower.kids(node):
                    came, sure = grower.token_id(kid) == token, grower.confidence(kid)
                    self._consent.note(grower.proposer_count(kid), session.crew, sure, came)
            below = grower.child(node, token)
            if below is None:
                break
            node = below
        for drafter, hits in scores.items():
            self._votes.note(drafter, sum(hits), len(hits))

    def _calibration(self, drafter: str) -> Calibration:
        """A drafter's calibration, to be taught; the one that was taught least recently makes room for a new one."""
        found = self._calibrations.pop(drafter, None) or Calibration()
        self._calibrations[drafter] = found
        if len(self._calibrations) > DRAFTERS_MAX:
            del self._calibrations[next(iter(self._calibrations))]
        return found

    def _abandon(self, session_ids: set[str]) -> list[Command]:
        """Stops growing sessions whose trees nobody waits for: they are closed, or have a newer plan. Steps that served
        no other session are cancelled."""
        commands: list[Command] = []
        for round_ in list(self._rounds.values()):
            if not any(growth.item.session_id in session_ids for growth in round_.growths):
                continue
            round_.growths = [growth for growth in round_.growths if growth.item.session_id not in session_ids]
            if not round_.growths:
                commands += self._cancel(round_)
        return commands

    def _cancel(self, round_: Round) -> list[Command]:
        """Ends a round that serves nobody any more; a plan is answered all the same."""
        del self._rounds[round_.plan.round_id]
        commands: list[Command] = []
        for step_id, question in list(round_.waiting.items()):
            self._forget(round_, step_id)
            self._note_cancelled(step_id)
            commands.append(CancelSteps(question.drafter, (step_id,)))
        return commands if round_.ahead else [*commands, Trees(round_.plan.round_id, tuple(round_.missed))]

    def _note_cancelled(self, step_id: int) -> None:
        """Its answer, should it come, is nothing to count. Steps that were never sent have none."""
        self._cancelled[step_id] = None
        if len(self._cancelled) > CANCELLED_MAX:
            self._cancelled.popitem(last=False)

    # -- exchanges

    def _exchange(self, round_: Round, now: float) -> list[Command]:
        """Asks every drafter that a growing session wants, or finishes the round where none is left to ask."""
        asked: dict[str, dict[str, Asked]] = {}
        for growth in round_.growths:
            if not self._wants_more(round_, growth):
                continue
            for drafter in growth.item.drafters:
                if drafter in self._drafters and self._resting.get(drafter, 0.0) <= now:
                    asked.setdefault(drafter, {})[growth.item.session_id] = growth.ask(round_.plan, drafter)
        if not asked:
            return self._finish(round_, now)
        return [self._step(round_, drafter, items) for drafter, items in asked.items()]

    def _wants_more(self, round_: Round, growth: Growth) -> bool:
        if round_.ahead:
            return growth.ahead_left > 0 and len(growth.grower) < AHEAD_NODES_ENOUGH
        if not round_.plan.interleaved and growth.exchange_count:
            return False
        if growth.exchange_count and len(growth.grower) == 0:
            return False
        return growth.depth < growth.item.depth and growth.tip_value >= growth.item.value_min

    def _step(self, round_: Round, drafter: str, asked: Mapping[str, Asked]) -> Step:
        items = tuple(question.item for question in asked.values())
        step = Step(drafter, self._next_step, items, round_.plan.round_id)
        self._next_step += 1
        round_.waiting[step.step_id] = Question(drafter, asked)
        self._steps[step.step_id] = round_.plan.round_id
        for session_id in asked:
            self._holders.setdefault(session_id, set()).add(drafter)
        return step

    def _forget(self, round_: Round, step_id: int) -> None:
        round_.waiting.pop(step_id, None)
        self._steps.pop(step_id, None)

    def _take(self, growth: Growth, drafter: str, asked: Asked, guess: Guess) -> bool:
        """Notes a guess; False where the drafter lost its cache, so that it must be asked again."""
        sent, session = asked.item, growth.session
        if guess.missed and sent.base_length > 0:
            session.known[drafter] = 0
            return False
        if guess.tree is not None:
            session.known[drafter] = sent.base_length + len(sent.token_ids)
            growth.guesses.append((growth.item.drafters.index(drafter), asked, guess.tree))
        return True

    def _answered(self, round_: Round, step_id: int, now: float) -> list[Command]:
        """One drafter less to wait for; with the last one the trees grow and the next exchange starts."""
        self._forget(round_, step_id)
        if round_.waiting:
            return []
        self._absorb_all(round_)
        return self._exchange(round_, now)

    def _absorb_all(self, round_: Round) -> None:
        for growth in round_.growths:
            if round_.ahead:
                growth.ahead_left = growth.ahead_left - AHEAD_STEPS if growth.guesses else 0
                growth.absorb(self._estimator(round_.plan))
            elif growth.guesses:
                wanted = growth.depth + min(round_.plan.fusion_interval, growth.item.depth - growth.depth)
                growth.absorb(self._estimator(round_.plan))
                if growth.depth < wanted:  # every drafter has stopped: nobody has more to say
                    growth.tip_value = -1.0
                growth.exchange_count += 1
                growth.forward_us += round_.slowest_us
            elif self._wants_more(round_, growth):
                growth.tip_value = -1.0
        round_.slowest_us = 0

    def _factors(self, plan: DraftPlan, item: PlanItem) -> Sequence[float]:
        return self._consent.factors(len(item.drafters)) if plan.calibrated else ()

    def _estimator(self, plan: DraftPlan) -> Estimate:
        return self._estimate if plan.calibrated else _as_said

    def _estimate(self, session: Session, drafter: str) -> Callable[[float], float]:
        calibration = self._calibrations.get(drafter) or Calibration()
        record = session.records.get(drafter)
        return calibration.estimator(1.0 if record is None else record.factor)

    def _finish(self, round_: Round, now: float) -> list[Command]:
        """Delivers a plan's trees and, where the plan says so, lets them grow on."""
        plan = round_.plan
        self._rounds.pop(plan.round_id, None)
        if round_.ahead:
            return []
        results = tuple(self._result(plan, growth) for growth in round_.growths)
        commands: list[Command] = [Trees(plan.round_id, (*round_.missed, *results))]
        if plan.lookahead and round_.growths:
            for growth in round_.growths:
                growth.go_ahead(plan.lookahead)
            ahead = Round(plan, round_.deadline, round_.growths, ahead=True)
            self._rounds[plan.round_id] = ahead
            commands += self._exchange(ahead, now)
        return commands

    def _result(self, plan: DraftPlan, growth: Growth) -> DraftedTree:
        if plan.cooperation is not Cooperation.VOTED:
            return growth.harvest(plan.opinions)
        return growth.harvest(plan.opinions, lambda tree: self._votes.elect(tree, growth.item.drafters))

    def _miss(self, drafter: str, now: float) -> None:
        """A drafter that misses several deadlines in a row rests for a while."""
        self._misses[drafter] = self._misses.get(drafter, 0) + 1
        if self._misses[drafter] >= MISSES_MAX:
            self._resting[drafter] = now + REST_S


def _as_said(_session: Session, _drafter: str) -> Callable[[float], float]:
    return float


def _common_prefix(left: Sequence[int], right: Sequence[int], start: int) -> int:
    """Length of the common prefix of two sequences known to agree up to `start`."""
    length = start
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length
