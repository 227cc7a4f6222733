"""Confidence-based token fusion: steps the drafters of a plan and merges what they guess (CoSine section on fusion).

`Fusion` is a machine: plans, candidates, losses and the passing of time go in, steps for drafters and finished trees
come out. It owns the sessions' tokens, what each drafter holds of them, and each drafter's calibration. It does no I/O.

- SINGLE and MERGED take one exchange: every drafter grows its own tree, the trees become one.
- FUSED takes an exchange every `fusion_interval` tokens: the token of the highest calibrated confidence extends the
  backbone, all drafters go on from there (the paper's "replace" reading), and the other candidates hang beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core.calibration import Calibration, Record
from cosine.core.plan import Cooperation, DraftedTree, DraftPlan, Guess, PlanItem, Step, StepItem, Trees
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, children, prune

MISSES_MAX = 3
REST_S = 5.0


Command = Step | Trees


@dataclass(slots=True)
class Proposal:
    """A token a drafter proposed at a node of the tree, to be judged once the target's pick there is known."""

    node: int
    drafter: str
    raw: float
    estimate: float


@dataclass(slots=True)
class Session:
    """A request's tokens and what fusion remembers of its last tree."""

    tokens: list[int] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    backbone: list[int] = field(default_factory=list)
    tree: TokenTree = EMPTY
    proposals: list[Proposal] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)


@dataclass(slots=True)
class Growth:
    """One session's tree while it grows."""

    item: PlanItem
    session: Session
    grower: Grower = field(default_factory=Grower)
    kids: dict[int, list[int]] = field(default_factory=dict)
    tip: int = ROOT
    tip_value: float = 1.0
    depth: int = 0
    exchange_count: int = 0
    forward_us: int = 0
    guesses: list[tuple[int, TokenTree]] = field(default_factory=list)


@dataclass(slots=True)
class Round:
    """A plan on its way: who still owes an answer in this exchange, as step id -> (drafter, items)."""

    plan: DraftPlan
    deadline: float
    growths: list[Growth]
    missed: list[DraftedTree]
    waiting: dict[int, tuple[str, tuple[StepItem, ...]]] = field(default_factory=dict)
    slowest_us: int = 0


class Fusion:
    """The machine. `now` is in seconds on any clock that only goes forward."""

    def __init__(self, sessions_max: int = 1024) -> None:
        self._sessions_max = sessions_max
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._drafters: set[str] = set()
        self._calibrations: dict[str, Calibration] = {}
        self._rounds: dict[int, Round] = {}
        self._steps: dict[int, int] = {}
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

    def drafter_down(self, drafter: str, now: float) -> list[Command]:
        """A drafter is gone; rounds that wait for it go on without it."""
        self._drafters.discard(drafter)
        commands: list[Command] = []
        for round_ in list(self._rounds.values()):
            for step_id, (who, _) in list(round_.waiting.items()):
                if who == drafter:
                    commands += self._answered(round_, step_id, now)
        return commands

    def plan(self, plan: DraftPlan, now: float) -> list[Command]:
        """A new plan. Its first steps come back, or at once its trees where no drafter can help."""
        growths: list[Growth] = []
        missed: list[DraftedTree] = []
        self._abandon({item.session_id for item in plan.items})
        for item in plan.items:
            session = self._advance(item)
            if session is None:
                missed.append(DraftedTree(item.session_id, item.base_length, missed=True))
            else:
                growths.append(Growth(item, session))
        round_ = Round(plan, now + plan.deadline_ms / 1000, growths, missed)
        self._rounds[plan.round_id] = round_
        return self._exchange(round_, now)

    def candidates(self, step_id: int, guesses: Iterable[Guess], forward_us: int, now: float) -> list[Command]:
        """A drafter's answer. Answers to steps that nobody waits for any more are dropped and counted."""
        round_ = self._rounds.get(self._steps.get(step_id, -1))
        if round_ is None or step_id not in round_.waiting:
            self.stale_count += 1
            return []
        drafter, items = round_.waiting[step_id]
        self._misses.pop(drafter, None)
        round_.slowest_us = max(round_.slowest_us, forward_us)
        sent = {item.session_id: item for item in items}
        growths = {growth.item.session_id: growth for growth in round_.growths}
        retry: list[StepItem] = []
        for guess in guesses:
            growth = growths.get(guess.session_id)
            if growth is not None and guess.session_id in sent:
                retry += self._take(growth, drafter, sent[guess.session_id], guess)
        if not retry:
            return self._answered(round_, step_id, now)
        self._forget(round_, step_id)
        return [self._step(round_, drafter, retry)]

    def tick(self, now: float) -> list[Command]:
        """Completes rounds whose deadline has passed with what has arrived."""
        commands: list[Command] = []
        for round_ in [entry for entry in self._rounds.values() if entry.deadline <= now]:
            for step_id, (drafter, _) in list(round_.waiting.items()):
                self._miss(drafter, now)
                self._forget(round_, step_id)
            self._absorb_all(round_)
            commands.append(self._finish(round_))
        return commands

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min((round_.deadline for round_ in self._rounds.values()), default=None)

    def close(self, session_ids: Iterable[str]) -> None:
        """Forgets sessions; a plan that works on one goes on without it."""
        gone = set(session_ids)
        self._abandon(gone)
        for session_id in gone:
            self._sessions.pop(session_id, None)

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    # -- sessions

    def _advance(self, item: PlanItem) -> Session | None:
        """Brings a session to the plan's committed tokens and judges its last tree; None where tokens are missing."""
        session = self._sessions.pop(item.session_id, None) or Session()
        if item.base_length > len(session.tokens):
            return None
        old_length = len(session.tokens)
        speculated = session.tokens + session.backbone
        if item.base_length == old_length:
            self._judge(session, item.token_ids)
        session.tokens = session.tokens[: item.base_length] + list(item.token_ids)
        agreed = _common_prefix(speculated, session.tokens, item.base_length)
        session.known = {drafter: min(length, agreed) for drafter, length in session.known.items()}
        session.backbone, session.tree, session.proposals = [], EMPTY, []
        self._sessions[item.session_id] = session
        while len(self._sessions) > self._sessions_max:
            self._sessions.popitem(last=False)
        return session

    def _judge(self, session: Session, committed: Sequence[int]) -> None:
        """Learns from the target's picks: at every node of the committed path the right child is known now."""
        kids = children(session.tree)
        picks: dict[int, int] = {}
        node: int | None = ROOT
        for token in committed:
            if node is None:
                break
            picks[node] = token
            node = kids.get(node, {}).get(token)
        for proposal in session.proposals:
            pick = picks.get(session.tree.parents[proposal.node])
            if pick is None:
                continue
            hit = session.tree.token_ids[proposal.node] == pick
            self._calibrations.setdefault(proposal.drafter, Calibration()).note(proposal.raw, hit)
            session.records.setdefault(proposal.drafter, Record()).note(proposal.estimate, hit)

    def _abandon(self, session_ids: set[str]) -> None:
        """Stops growing sessions whose trees nobody waits for: they are closed, or have a newer plan."""
        for round_ in self._rounds.values():
            for growth in round_.growths:
                if growth.item.session_id in session_ids:
                    growth.session.tree = growth.grower.tree()
            round_.growths = [growth for growth in round_.growths if growth.item.session_id not in session_ids]

    # -- exchanges

    def _exchange(self, round_: Round, now: float) -> list[Command]:
        """Asks every drafter that a growing session wants, or finishes the round where none is left to ask."""
        asked: dict[str, list[StepItem]] = {}
        for growth in round_.growths:
            if not self._wants_more(round_.plan, growth):
                continue
            for drafter in growth.item.drafters:
                if drafter in self._drafters and self._resting.get(drafter, 0.0) <= now:
                    asked.setdefault(drafter, []).append(_step_item(round_.plan, growth, drafter))
        if not asked:
            return [self._finish(round_)]
        return [self._step(round_, drafter, items) for drafter, items in asked.items()]

    def _wants_more(self, plan: DraftPlan, growth: Growth) -> bool:
        if plan.cooperation is not Cooperation.FUSED and growth.exchange_count:
            return False
        if growth.exchange_count and len(growth.grower) == 0:
            return False
        return growth.depth < growth.item.depth and growth.tip_value >= growth.item.value_min

    def _step(self, round_: Round, drafter: str, items: Sequence[StepItem]) -> Step:
        step = Step(drafter, self._next_step, tuple(items), round_.plan.round_id)
        self._next_step += 1
        round_.waiting[step.step_id] = (drafter, step.items)
        self._steps[step.step_id] = round_.plan.round_id
        return step

    def _forget(self, round_: Round, step_id: int) -> None:
        round_.waiting.pop(step_id, None)
        self._steps.pop(step_id, None)

    def _take(self, growth: Growth, drafter: str, sent: StepItem, guess: Guess) -> list[StepItem]:
        """Notes a guess; where the drafter lost its cache, the step again with the whole context."""
        session = growth.session
        if guess.missed and sent.base_length > 0:
            session.known[drafter] = 0
            whole = (*session.tokens, *session.backbone)
            return [
                StepItem(
                    sent.session_id, 0, whole, sent.step_count, sent.width, sent.beam, sent.value_min, sent.sampling
                )
            ]
        if guess.tree is not None:
            session.known[drafter] = sent.base_length + len(sent.token_ids)
            growth.guesses.append((growth.item.drafters.index(drafter), guess.tree))
        return []

    def _answered(self, round_: Round, step_id: int, now: float) -> list[Command]:
        """One drafter less to wait for; with the last one the trees grow and the next exchange starts."""
        self._forget(round_, step_id)
        if round_.waiting:
            return []
        self._absorb_all(round_)
        return self._exchange(round_, now)

    def _absorb_all(self, round_: Round) -> None:
        for growth in round_.growths:
            if not growth.guesses:
                if self._wants_more(round_.plan, growth):
                    growth.tip_value = -1.0
                continue
            wanted = growth.depth + min(round_.plan.fusion_interval, growth.item.depth - growth.depth)
            self._absorb(growth)
            if growth.depth < wanted:  # every drafter has stopped: nobody has more to say
                growth.tip_value = -1.0
            growth.exchange_count += 1
            growth.forward_us += round_.slowest_us
        round_.slowest_us = 0

    def _absorb(self, growth: Growth) -> None:
        """Hangs all guesses below the tip with calibrated confidences, then moves the tip down the best path."""
        for bit, tree in growth.guesses:
            drafter = growth.item.drafters[bit]
            place = {ROOT: growth.tip}
            for node, parent in enumerate(tree.parents):
                raw = tree.confidences[node]
                estimate = self._estimate(growth.session, drafter, raw)
                fresh = len(growth.grower)
                place[node] = growth.grower.add(place[parent], tree.token_ids[node], estimate, 1 << bit)
                if place[node] == fresh:
                    growth.kids.setdefault(place[parent], []).append(fresh)
                growth.session.proposals.append(Proposal(place[node], drafter, raw, estimate))
        growth.guesses = []
        _extend_backbone(growth)

    def _estimate(self, session: Session, drafter: str, raw: float) -> float:
        calibration = self._calibrations.get(drafter)
        estimate = raw if calibration is None else calibration.estimate(raw)
        record = session.records.get(drafter)
        return min(1.0, estimate * (1.0 if record is None else record.factor))

    def _finish(self, round_: Round) -> Trees:
        del self._rounds[round_.plan.round_id]
        return Trees(round_.plan.round_id, (*round_.missed, *(self._harvest(growth) for growth in round_.growths)))

    def _harvest(self, growth: Growth) -> DraftedTree:
        session, item = growth.session, growth.item
        session.tree = growth.grower.tree()
        tree = prune(session.tree, item.node_budget)
        return DraftedTree(
            item.session_id,
            len(session.tokens),
            tree,
            exchange_count=growth.exchange_count,
            forward_us=growth.forward_us,
        )

    def _miss(self, drafter: str, now: float) -> None:
        """A drafter that misses several deadlines in a row rests for a while."""
        self._misses[drafter] = self._misses.get(drafter, 0) + 1
        if self._misses[drafter] >= MISSES_MAX:
            self._resting[drafter] = now + REST_S

    def calibrations(self) -> Mapping[str, Calibration]:
        """What has been learned of each drafter."""
        return self._calibrations


def _step_item(plan: DraftPlan, growth: Growth, drafter: str) -> StepItem:
    session, item = growth.session, growth.item
    sequence = session.tokens + session.backbone
    base = min(session.known.get(drafter, 0), len(sequence) - 1)
    left = item.depth - growth.depth
    fused = plan.cooperation is Cooperation.FUSED
    return StepItem(
        item.session_id,
        base,
        tuple(sequence[base:]),
        min(plan.fusion_interval, left) if fused else left,
        item.width,
        item.beam,
        item.value_min / max(growth.tip_value, 1e-9),
        item.sampling,
    )


def _extend_backbone(growth: Growth) -> None:
    """Moves the tip down, child by most confident child (ties: lowest id), to the end of the path."""
    grower = growth.grower
    while growth.tip in growth.kids:
        growth.tip = max(growth.kids[growth.tip], key=lambda node: (grower.confidence(node), -grower.token_id(node)))
        growth.tip_value *= grower.confidence(growth.tip)
        growth.session.backbone.append(grower.token_id(growth.tip))
        growth.depth += 1


def _common_prefix(left: Sequence[int], right: Sequence[int], start: int) -> int:
    """Length of the common prefix of two sequences known to agree up to `start`."""
    length = start
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length
