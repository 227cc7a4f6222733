"""One session's tree while fusion grows it: guesses hang below it, its tip moves down, a verdict leaves part of it.

Fusion holds one `Session` per request: the committed tokens, what each drafter holds of them, and the last tree. A
`Growth` is a tree in the making. It grows either at its tip (drafters go on from the backbone, which their caches hold)
or as a whole (drafters are sent the tree and expand its most valuable ends), the latter wherever more than one path
matters: while a verdict is out, after one, and in the "fork" reading of token fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cosine.core.calibration import Record
from cosine.core.plan import DraftedTree, DraftPlan, PlanItem, Reading, StepItem
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, children, prune, remaining, select

AHEAD_BEAM = 4
AHEAD_STEPS = 1
AHEAD_NODES_MAX = 48
AHEAD_VALUE_MIN = 0.02

Estimate = Callable[["Session", str, float], float]


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
    grower: Grower = field(default_factory=Grower)
    proposals: list[Proposal] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)

    def restart(self, keep: tuple[TokenTree, list[Proposal]] | None) -> None:
        """Forgets the last tree, or all of it that a verdict left no room for."""
        tree, self.proposals = keep or (EMPTY, [])
        self.backbone = []
        self.grower = Grower()
        for node in range(len(tree)):
            self.grower.add(tree.parents[node], tree.token_ids[node], tree.confidences[node], 0)

    def left_by(self, committed: Sequence[int]) -> tuple[TokenTree, list[Proposal]] | None:
        """What of the last tree still holds below the committed tokens, with its proposals; None where nothing does."""
        tree = self.grower.tree()
        found = remaining(tree, committed)
        if found is None or not found[1]:
            return None
        root, nodes = found
        place = {node: index for index, node in enumerate(nodes)}
        parts = {root: ROOT} | place
        rest = TokenTree(
            tuple(tree.token_ids[node] for node in nodes),
            tuple(parts[tree.parents[node]] for node in nodes),
            tuple(tree.confidences[node] for node in nodes),
        )
        kept = [proposal for proposal in self.proposals if proposal.node in place]
        for proposal in kept:
            proposal.node = place[proposal.node]
        return rest, kept


@dataclass(frozen=True, slots=True)
class Asked:
    """What a drafter was sent for one session: the step, the node its answer hangs below, and those of the tree that
    it was sent, in their order."""

    item: StepItem
    anchor: int = ROOT
    nodes: tuple[int, ...] = ()


@dataclass(slots=True)
class Growth:
    """One session's tree while it grows. `whole` says that drafters are sent the tree, not only its tip."""

    item: PlanItem
    session: Session
    whole: bool = False
    kids: dict[int, list[int]] = field(default_factory=dict)
    tip: int = ROOT
    tip_value: float = 1.0
    depth: int = 0
    kept_depth: int = 0
    exchange_count: int = 0
    forward_us: int = 0
    ahead_left: int = 0
    guesses: list[tuple[int, Asked, TokenTree]] = field(default_factory=list)
    own: dict[int, int] = field(default_factory=dict)

    @property
    def grower(self) -> Grower:
        return self.session.grower

    def adopt(self) -> None:
        """Starts from what the session's last tree left."""
        tree = self.grower.tree()
        for node, parent in enumerate(tree.parents):
            self.kids.setdefault(parent, []).append(node)
        for proposal in self.session.proposals:
            if proposal.drafter in self.item.drafters:
                self.grower.claim(proposal.node, 1 << self.item.drafters.index(proposal.drafter))
        self.whole = len(tree) > 0
        self.move_tip()
        self.kept_depth = self.depth

    def go_ahead(self, step_count: int) -> None:
        """From here on drafters are sent the whole tree: what they hold beyond the committed tokens counts no more."""
        self.whole, self.ahead_left = True, step_count
        length = len(self.session.tokens)
        self.session.known = {drafter: min(held, length) for drafter, held in self.session.known.items()}

    def absorb(self, estimate: Estimate) -> None:
        """Hangs all guesses below the places they were asked for, then moves the tip down the best path."""
        for bit, asked, tree in self.guesses:
            drafter = self.item.drafters[bit]
            place = {ROOT: asked.anchor} | dict(enumerate(asked.nodes))
            for node in range(len(asked.nodes), len(tree)):
                raw = tree.confidences[node]
                value = estimate(self.session, drafter, raw)
                place[node] = self._add(place[tree.parents[node]], tree.token_ids[node], value, 1 << bit)
                self.session.proposals.append(Proposal(place[node], drafter, raw, value))
            self.own[bit] = self._own_end(bit, place, tree)
        self.guesses = []
        self.move_tip()

    def _add(self, parent: int, token_id: int, value: float, proposers: int) -> int:
        fresh = len(self.grower)
        node = self.grower.add(parent, token_id, value, proposers)
        if node == fresh:
            self.kids.setdefault(parent, []).append(fresh)
        return node

    def _own_end(self, bit: int, place: Mapping[int, int], tree: TokenTree) -> int:
        """Where a drafter's own path ends now: from its last end (or the anchor) down by its own confidence."""
        kids = children(tree)
        node = next((local for local, at in place.items() if at == self.own.get(bit)), ROOT)
        while node in kids:
            node = max(kids[node].values(), key=lambda kid: (tree.confidences[kid], -tree.token_ids[kid]))
        return place[node]

    def move_tip(self) -> None:
        """Moves the tip down, child by most confident child (ties: lowest id), to the end of the path."""
        grower = self.grower
        if self.whole:
            self.tip, self.tip_value, self.depth = ROOT, 1.0, 0
            self.session.backbone = []
        while self.tip in self.kids:
            self.tip = max(self.kids[self.tip], key=lambda node: (grower.confidence(node), -grower.token_id(node)))
            self.tip_value *= grower.confidence(self.tip)
            self.session.backbone.append(grower.token_id(self.tip))
            self.depth += 1

    def harvest(self) -> DraftedTree:
        """The tree as the plan's answer, within its budget."""
        return DraftedTree(
            self.item.session_id,
            len(self.session.tokens),
            prune(self.grower.tree(), self.item.node_budget),
            exchange_count=self.exchange_count,
            forward_us=self.forward_us,
            kept_depth=self.kept_depth,
        )

    # -- what drafters are asked

    def ask(self, plan: DraftPlan, drafter: str) -> Asked:
        """The next step for one drafter."""
        left = self.item.depth - self.depth
        count = min(plan.fusion_interval, left) if plan.interleaved else left
        if self.ahead_left:
            return self._ask_whole(drafter, min(AHEAD_STEPS, self.ahead_left), AHEAD_BEAM, AHEAD_VALUE_MIN)
        if plan.reading is Reading.FORK and self.exchange_count:
            return self._ask_forked(drafter, count)
        if self.whole:
            return self._ask_whole(drafter, count, self.item.beam, self.item.value_min)
        return Asked(self._tip_item(drafter, count, plan.interleaved and count < left), self.tip)

    def ask_again(self, asked: Asked) -> Asked:
        """The same for a drafter that lost its cache: with the whole context."""
        sent = asked.item
        sequence = self.session.tokens + self.session.backbone
        context = tuple(sequence[: sent.base_length + len(sent.token_ids)])
        return replace(asked, item=replace(sent, base_length=0, token_ids=context))

    def _tip_item(self, drafter: str, step_count: int, run_ahead: bool) -> StepItem:
        session, item = self.session, self.item
        sequence = session.tokens + session.backbone
        base = min(session.known.get(drafter, 0), len(sequence) - 1)
        least = item.value_min / max(self.tip_value, 1e-9)
        return StepItem(
            item.session_id,
            base,
            tuple(sequence[base:]),
            step_count,
            item.width,
            item.beam,
            least,
            item.sampling,
            run_ahead=run_ahead,
        )

    def _ask_whole(self, drafter: str, step_count: int, beam: int, value_min: float) -> Asked:
        nodes = _best_nodes(self.grower.tree(), AHEAD_NODES_MAX)
        return self._ask_below(drafter, step_count, beam, value_min, nodes)

    def _ask_forked(self, drafter: str, step_count: int) -> Asked:
        """The fused path and the drafter's own, where they differ, both to be continued."""
        parents = self.grower.tree().parents
        nodes = {self.tip, self.own.get(self.item.drafters.index(drafter), self.tip)} - {ROOT}
        for end in list(nodes):
            node = end
            while parents[node] != ROOT:
                node = parents[node]
                nodes.add(node)
        return self._ask_below(drafter, step_count, 2 * self.item.beam, self.item.value_min, tuple(sorted(nodes)))

    def _ask_below(self, drafter: str, step_count: int, beam: int, value_min: float, nodes: tuple[int, ...]) -> Asked:
        session, item = self.session, self.item
        base = min(session.known.get(drafter, 0), len(session.tokens) - 1)
        seed = select(self.grower.tree(), nodes)
        step = StepItem(
            item.session_id,
            base,
            tuple(session.tokens[base:]),
            step_count,
            item.width,
            beam,
            value_min,
            item.sampling,
            TokenTree(seed.token_ids, seed.parents, seed.confidences),
        )
        return Asked(step, ROOT, nodes)


def _best_nodes(tree: TokenTree, count: int) -> tuple[int, ...]:
    """The nodes of the highest value, in their order; closed under parents."""
    if len(tree) <= count:
        return tuple(range(len(tree)))
    value: list[float] = []
    for parent, confidence in zip(tree.parents, tree.confidences, strict=True):
        value.append(confidence * (1.0 if parent == ROOT else value[parent]))
    return tuple(sorted(sorted(range(len(tree)), key=lambda node: (-value[node], node))[:count]))
