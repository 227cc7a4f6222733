"""One session's tree while fusion grows it: guesses hang below it, its tip moves down, a verdict leaves part of it.

Fusion holds one `Session` per request: the committed tokens, what each drafter holds of them, and the last tree. A
`Growth` is a tree in the making. It grows either at its tip (drafters go on from the backbone, which their caches hold)
or as a whole (drafters are sent the tree and expand its most valuable ends), the latter wherever more than one path
matters: while a verdict is out, after one, and in the "fork" reading of token fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from cosine.core.calibration import Record
from cosine.core.plan import DraftedTree, DraftPlan, PlanItem, Reading, StepItem
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, children, hang, prune, select, values

AHEAD_BEAM = 16
AHEAD_STEPS = 3  # between two exchanges; what is begun when the verdict comes is lost
AHEAD_ENDS_MAX = 32
AHEAD_VALUE_MIN = 0.02
AHEAD_SURE_MIN = 0.05  # of siblings; nearly all that is said with less is wrong

Estimate = Callable[["Session", str], Callable[[float], float]]


@dataclass(slots=True)
class Proposal:
    """A token a drafter proposed at a node of the tree, to be judged once the target's pick there is known."""

    node: int
    drafter: str
    raw: float
    estimate: float


@dataclass(slots=True)
class Session:
    """A request's tokens and what fusion remembers of its last tree; `proposals` by the node they hang below."""

    tokens: list[int] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    backbone: list[int] = field(default_factory=list)
    grower: Grower = field(default_factory=Grower)
    proposals: dict[int, list[Proposal]] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def restart(self, keep: tuple[TokenTree, dict[int, list[Proposal]]] | None) -> None:
        """Forgets the last tree, or all of it that a verdict left no room for."""
        tree, self.proposals = keep or (EMPTY, {})
        self.backbone = []
        self.grower = Grower()
        for node in range(len(tree)):
            self.grower.add(tree.parents[node], tree.token_ids[node], tree.confidences[node], 0)

    def left_by(self, committed: Sequence[int]) -> tuple[TokenTree, dict[int, list[Proposal]]] | None:
        """What of the last tree still holds below the committed tokens, with its proposals; None where nothing does."""
        root = ROOT
        for token in committed:
            below = self.grower.child(root, token)
            if below is None:
                return None
            root = below
        tree = self.grower.tree()
        place, nodes = {root: ROOT}, list[int]()
        for node in range(root + 1, len(tree)):
            if tree.parents[node] in place:
                place[node] = len(nodes)
                nodes.append(node)
        if not nodes:
            return None
        kept = {place[parent]: found for parent, found in self.proposals.items() if parent in place}
        for proposal in chain.from_iterable(kept.values()):
            proposal.node = place[proposal.node]
        return hang(tree, root, nodes), kept


@dataclass(frozen=True, slots=True)
class Asked:
    """What a drafter was sent for one session: the step, the node its answer hangs below, and those of the tree that
    it was sent, in their order."""

    item: StepItem
    anchor: int = ROOT
    nodes: tuple[int, ...] = ()


@dataclass(slots=True)
class Growth:
    """One session's tree while it grows. `whole` says that drafters are sent the tree, not only its tip; `ahead` that
    its verdict is out; `forks` that each drafter's own path goes on beside the fused one."""

    item: PlanItem
    session: Session
    forks: bool = False
    whole: bool = False
    ahead: bool = False
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
    sent: tuple[float, tuple[int, ...]] | None = None

    @property
    def grower(self) -> Grower:
        return self.session.grower

    def adopt(self) -> None:
        """Starts from what the session's last tree left."""
        tree = self.grower.tree()
        for node, parent in enumerate(tree.parents):
            self.kids.setdefault(parent, []).append(node)
        bits = {drafter: 1 << bit for bit, drafter in enumerate(self.item.drafters)}
        for proposal in chain.from_iterable(self.session.proposals.values()):
            self.grower.claim(proposal.node, bits.get(proposal.drafter, 0))
        self.whole = len(tree) > 0
        self.move_tip()
        self.kept_depth = self.depth

    def go_ahead(self, step_count: int) -> None:
        """From here on drafters are sent the whole tree: what they hold beyond the committed tokens counts no more."""
        self.whole, self.ahead, self.ahead_left = True, True, step_count
        length = len(self.session.tokens)
        self.session.known = {drafter: min(held, length) for drafter, held in self.session.known.items()}

    def absorb(self, estimate: Estimate) -> None:
        """Hangs all guesses below the places they were asked for, then moves the tip down the best path."""
        for bit, asked, tree in self.guesses:
            drafter = self.item.drafters[bit]
            place = self._hang(asked, tree, drafter, 1 << bit, estimate(self.session, drafter))
            if self.forks and not self.ahead:
                self.own[bit] = self._own_end(bit, place, tree)
        self.guesses, self.sent = [], None
        self.move_tip()

    def _hang(
        self, asked: Asked, tree: TokenTree, drafter: str, bit: int, worth: Callable[[float], float]
    ) -> dict[int, int]:
        """Where each node of a guess is now. While looking ahead, siblings that are hardly ever right are left out, and
        what hangs below them: they would cost more than they bring."""
        proposals, kids, grower = self.session.proposals, self.kids, self.session.grower
        place = {ROOT: asked.anchor} | dict(enumerate(asked.nodes))
        seen: set[int] = set()
        least = AHEAD_SURE_MIN if self.ahead else 0.0
        for node in range(len(asked.nodes), len(tree)):
            above, raw = place.get(tree.parents[node]), tree.confidences[node]
            if above is None or (raw < least and above in seen):
                continue
            seen.add(above)
            value, fresh = worth(raw), len(grower)
            place[node] = at = grower.add(above, tree.token_ids[node], value, bit)
            if at == fresh:
                kids.setdefault(above, []).append(at)
            proposals.setdefault(above, []).append(Proposal(at, drafter, raw, value))
        return place

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
        if self.ahead:
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
        if self.sent is None or self.sent[0] != value_min:
            self.sent = value_min, self._open_paths(value_min)  # the same for all drafters of an exchange
        return self._ask_below(drafter, step_count, beam, value_min, self.sent[1])

    def _open_paths(self, value_min: float) -> tuple[int, ...]:
        """The most valuable ends of the tree, of at least that value, and the way to each: what goes on from there
        needs no other node."""
        tree = self.grower.tree()
        value = values(tree)
        ends = sorted((-value[node], node) for node in range(len(tree)) if node not in self.kids)[:AHEAD_ENDS_MAX]
        wanted: set[int] = set()
        for _, node in [end for end in ends if -end[0] >= value_min] or ends[:1]:
            while node != ROOT and node not in wanted:
                wanted.add(node)
                node = tree.parents[node]
        return tuple(sorted(wanted))

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
