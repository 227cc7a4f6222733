"""One session's tree while fusion grows it: guesses hang below it, its tip moves down, a verdict leaves part of it.

Fusion holds one `Session` per request: the committed tokens, what each drafter holds of them, and the last tree. A
`Growth` is a tree in the making. It grows either at its tip (drafters go on from the backbone, which their caches hold)
or as a whole (drafters are sent the tree and expand its most valuable ends), the latter wherever more than one path
matters: while a verdict is out, after one, and in the "fork" reading of token fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cosine.core.calibration import Record
from cosine.core.plan import DraftedTree, DraftItem, DraftPlan, PlanItem, Reading
from cosine.core.tree import ROOT, Grower, TokenTree, children, prune, select, values

AHEAD_BEAM = 16
AHEAD_STEPS = 3  # between two exchanges; what is begun when the verdict comes is lost
AHEAD_ENDS_MAX = 32
AHEAD_VALUE_MIN = 0.02
AHEAD_SIBLING_MIN = 0.05  # nearly all that is said with less is wrong, and costs more than it brings

Estimate = Callable[["Session", str], Callable[[float], float]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a drafter was sent for one session: the step, the node its answer hangs below, and those of the tree that
    it was sent, in their order."""

    item: DraftItem
    anchor: int = ROOT
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposals:
    """What a drafter proposed in one answer and the session's tree still holds, to be judged once the target's picks
    are known: in parallel, each node's place, what it hangs below, its token, and how sure the drafter said it was.
    `worth` is what a confidence was thought to be worth."""

    drafter: str
    nodes: Sequence[int]
    parents: Sequence[int]
    token_ids: Sequence[int]
    confidences: Sequence[float]
    worth: Callable[[float], float]

    def below(self, node: int) -> list[tuple[int, float]]:
        """Tokens that were proposed right below a node, each with its raw confidence."""
        found, index = list[tuple[int, float]](), -1
        with suppress(ValueError):  # there is no further one
            while True:
                index = self.parents.index(node, index + 1)
                found.append((self.token_ids[index], self.confidences[index]))
        return found

    def moved(self, places: Mapping[int, int]) -> Proposals | None:
        """What is left of it where the session's nodes have gone to other places; None where nothing is. What hangs
        below a node goes with it."""
        left = [index for index, parent in enumerate(self.parents) if parent in places]
        if not left:
            return None
        return Proposals(
            self.drafter,
            [places[self.nodes[index]] for index in left],
            [places[self.parents[index]] for index in left],
            [self.token_ids[index] for index in left],
            [self.confidences[index] for index in left],
            self.worth,
        )


@dataclass(slots=True)
class Session:
    """A request's tokens and what fusion remembers of its last tree."""

    tokens: list[int] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    backbone: list[int] = field(default_factory=list)
    grower: Grower = field(default_factory=Grower)
    proposals: list[Proposals] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    crew: int = 0

    def restart(self) -> None:
        """Forgets the last tree."""
        self.grower, self.proposals, self.backbone = Grower(), [], []

    def go_on(self, committed: Sequence[int]) -> None:
        """Keeps of the last tree what still holds below the committed tokens."""
        root = ROOT
        for token in committed:
            below = self.grower.child(root, token)
            if below is None:
                self.restart()
                return
            root = below
        self.grower, places = self.grower.below(root)
        moved = (proposals.moved(places) for proposals in self.proposals)
        self.proposals = [proposals for proposals in moved if proposals is not None]
        self.backbone = []


@dataclass(slots=True)
class Growth:
    """One session's tree while it grows. `whole` says that drafters are sent the tree, not only its tip; `ahead` that
    its verdict is out; `forks` that each drafter's own path goes on beside the fused one. `consent` is what confidences
    are weighed with, by how many propose a node (empty: nothing)."""

    item: PlanItem
    session: Session
    forks: bool = False
    consent: Sequence[float] = ()
    whole: bool = False
    ahead: bool = False
    tip: int = ROOT
    tip_value: float = 1.0
    depth: int = 0
    kept_depth: int = 0
    exchange_count: int = 0
    forward_us: int = 0
    ahead_left: int = 0
    guesses: list[tuple[int, Asked, TokenTree]] = field(default_factory=list)
    own: dict[int, int] = field(default_factory=dict)
    sent: tuple[float, tuple[int, ...], TokenTree] | None = None

    @property
    def grower(self) -> Grower:
        return self.session.grower

    def adopt(self) -> None:
        """Starts from what the session's last tree left."""
        bits = {drafter: 1 << bit for bit, drafter in enumerate(self.item.drafters)}
        for proposals in self.session.proposals:
            self.grower.claim(proposals.nodes, bits.get(proposals.drafter, 0))
        self.session.crew = len(bits)
        self.whole = len(self.grower) > 0
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
            worth = estimate(self.session, drafter)
            places = self._hang(asked, tree, worth, 1 << bit)
            self.session.proposals.append(_proposed(drafter, asked, tree, places, worth))
            if self.forks and not self.ahead:
                self.own[bit] = self._own_end(bit, places, tree)
        self.guesses, self.sent = [], None
        self.move_tip()

    def _hang(self, asked: Asked, tree: TokenTree, worth: Callable[[float], float], bit: int) -> list[int]:
        """Where what the guess hangs below, and each of its nodes, is now."""
        first = len(asked.nodes)
        fresh = zip(tree.parents[first:], tree.token_ids[first:], map(worth, tree.confidences[first:]), strict=True)
        return self.grower.graft((asked.anchor, *asked.nodes), fresh, bit)

    def _own_end(self, bit: int, places: Sequence[int], tree: TokenTree) -> int:
        """Where a drafter's own path ends now: from its last end (or the anchor) down by its own confidence."""
        kids = children(tree)
        last = self.own.get(bit, ROOT)
        node = places.index(last) - 1 if last in places else ROOT
        while node in kids:
            node = max(kids[node].values(), key=lambda kid: (tree.confidences[kid], -tree.token_ids[kid]))
        return places[1 + node]

    def move_tip(self) -> None:
        """Moves the tip down, child by most confident child (ties: lowest id), to the end of the path."""
        grower = self.grower
        if self.whole:
            self.tip, self.tip_value, self.depth = ROOT, 1.0, 0
            self.session.backbone = []
        while kids := grower.kids(self.tip):
            self.tip = max(kids, key=lambda node: (grower.confidence(node), -grower.token_id(node)))
            self.tip_value *= grower.confidence(self.tip)
            self.session.backbone.append(grower.token_id(self.tip))
            self.depth += 1

    def harvest(self, opinions: bool, elect: Callable[[TokenTree], TokenTree] | None = None) -> DraftedTree:
        """The tree as the plan's answer, within its budget; with what each drafter said of it, where wanted. Where only
        a part of it is to be delivered, `elect` is shown the whole."""
        tree = self._weighed()
        if opinions:
            tree = replace(tree, opinions=self._opinions())
        return DraftedTree(
            self.item.session_id,
            len(self.session.tokens),
            prune(elect(tree) if elect else tree, self.item.node_budget),
            exchange_count=self.exchange_count,
            forward_us=self.forward_us,
            kept_depth=self.kept_depth,
        )

    def _weighed(self) -> TokenTree:
        """The tree so far, each confidence by how many stand behind it."""
        tree, factors = self.grower.tree(), self.consent
        if not factors:
            return tree
        weighed = zip(tree.confidences, tree.proposers, strict=True)
        return replace(tree, confidences=tuple([min(1.0, sure * factors[by.bit_count()]) for sure, by in weighed]))

    def _opinions(self) -> tuple[tuple[float, ...], ...]:
        """Per node how sure each of its proposers said it was, in the order of their bits; where one said it twice, the
        surer."""
        said: list[dict[int, float]] = [{} for _ in range(len(self.grower))]
        bits = {drafter: bit for bit, drafter in enumerate(self.item.drafters)}
        for proposals in self.session.proposals:
            if proposals.drafter in bits:
                bit = bits[proposals.drafter]
                for node, sure in zip(proposals.nodes, proposals.confidences, strict=True):
                    said[node][bit] = max(sure, said[node].get(bit, 0.0))
        return tuple(tuple(own[bit] for bit in sorted(own)) for own in said)

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

    def _tip_item(self, drafter: str, step_count: int, run_ahead: bool) -> DraftItem:
        session, item = self.session, self.item
        sequence = session.tokens + session.backbone
        base = min(session.known.get(drafter, 0), len(sequence) - 1)
        least = item.value_min / max(self.tip_value, 1e-9)
        return DraftItem(
            item.session_id,
            base,
            tuple(sequence[base:]),
            step_count,
            item.width,
            item.beam,
            item.sampling,
            least,
            run_ahead=run_ahead,
        )

    def _ask_whole(self, drafter: str, step_count: int, beam: int, value_min: float) -> Asked:
        if self.sent is None or self.sent[0] != value_min:  # the same for all drafters of an exchange
            nodes = self._open_paths(value_min)
            self.sent = value_min, nodes, self._seed(nodes)
        return self._ask_below(drafter, step_count, beam, *self.sent)

    def _open_paths(self, value_min: float) -> tuple[int, ...]:
        """The most valuable ends of the tree, of at least that value, and the way to each: what goes on from there
        needs no other node."""
        tree = self.grower.tree()
        value = values(tree)
        ends = sorted((-value[node], node) for node in self.grower.leaves())[:AHEAD_ENDS_MAX]
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
        seen = tuple(sorted(nodes))
        return self._ask_below(drafter, step_count, 2 * self.item.beam, self.item.value_min, seen, self._seed(seen))

    def _seed(self, nodes: Sequence[int]) -> TokenTree:
        """What drafters are sent of the tree: who proposed it is not their business."""
        return replace(select(self.grower.tree(), nodes), proposers=())

    def _ask_below(
        self, drafter: str, step_count: int, beam: int, value_min: float, nodes: tuple[int, ...], seed: TokenTree
    ) -> Asked:
        session, item = self.session, self.item
        base = min(session.known.get(drafter, 0), len(session.tokens) - 1)
        step = DraftItem(
            item.session_id,
            base,
            tuple(session.tokens[base:]),
            step_count,
            item.width,
            beam,
            item.sampling,
            value_min,
            seed,
            sibling_min=AHEAD_SIBLING_MIN if self.ahead else 0.0,
        )
        return Asked(step, ROOT, nodes)


def _proposed(
    drafter: str, asked: Asked, answer: TokenTree, places: Sequence[int], worth: Callable[[float], float]
) -> Proposals:
    """What of an answer was not sent to the drafter. `places` says where in the session's tree what the whole hangs
    below, and each node of the answer, is."""
    first = len(asked.nodes)
    parents = [places[1 + parent] for parent in answer.parents[first:]]
    return Proposals(drafter, places[1 + first :], parents, answer.token_ids[first:], answer.confidences[first:], worth)
