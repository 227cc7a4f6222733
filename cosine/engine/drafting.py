"""From a context to guesses on any engine: grow a tree a few steps deep, all sessions of a step in one forward pass.

A tree that starts empty grows level by level: the `beam` best nodes of each depth get their `width` best children. A
tree that was begun elsewhere grows best value first: each step expands the `beam` best nodes without children, wherever
they stand. Drafts use the target's noise (core.noise), so drafter and target tend to pick the same token at any
temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import chain

from cosine.core.picking import RowRule
from cosine.core.plan import DraftItem
from cosine.core.tree import EMPTY, ROOT, TokenTree, merge
from cosine.engine.base import Engine, Segment
from cosine.engine.verifying import Status, Verdict, check, refused

STEPS_MAX = 256  # several times what any strategy asks for; a step holds the engine until it is done
NODES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class DraftResult:
    """Guesses for one item, or why there are none."""

    session_id: str
    status: Status
    cached_length: int = 0
    tree: TokenTree = EMPTY


def draft(engine: Engine, items: Sequence[DraftItem], stop: Callable[[str], bool] | None = None) -> list[DraftResult]:
    """Results in the order of the items. Sessions must differ. Before every step `stop` is asked of each session that
    still grows; one for which it says true takes no further part, and its result is `cancelled`, with the tree so far.
    """
    problems = [_problem(engine, item) for item in items]
    growths = [_Growth(engine, item) for item, problem in zip(items, problems, strict=True) if problem is None]
    for step in range(max((growth.item.step_count for growth in growths), default=0)):
        alive = [growth for growth in growths if step < growth.item.step_count and growth.goes_on(step)]
        if stop is not None:
            alive = [growth for growth in alive if not growth.stops(stop)]
        if alive:
            _expand(engine, alive)
    done = iter(growths)
    return [
        next(done).result() if problem is None else DraftResult(item.session_id, problem.status, problem.cached_length)
        for item, problem in zip(items, problems, strict=True)
    ]


def _problem(engine: Engine, item: DraftItem) -> Verdict | None:
    """Why an item cannot be run, or None for one that can."""
    if item.step_count > STEPS_MAX:
        return refused(item, f"step_count is {item.step_count}; it must be at most {STEPS_MAX}")
    if item.step_count * item.width * item.beam > NODES_MAX:
        return refused(item, f"step_count, width and beam make more than {NODES_MAX} nodes; ask for fewer")
    return check(engine, item)


def cancelled(item: DraftItem, tree: TokenTree = EMPTY) -> DraftResult:
    """The result of an item that nobody wants any more; what its `base_length` names is still held."""
    return DraftResult(item.session_id, Status.CANCELLED, item.base_length, tree)


def _expand(engine: Engine, growths: Sequence[_Growth]) -> None:
    """One forward pass for all of them."""
    segments = [growth.segment() for growth in growths]
    logits = engine.forward(segments)
    rows: list[int] = []
    rules: list[RowRule] = []
    first_row = 0
    for growth, segment in zip(growths, segments, strict=True):
        rows += [first_row + row for row in growth.frontier_rows()]
        rules += growth.frontier_rules()
        first_row += 1 + len(segment.tree)
    found = iter(logits.children(rows, rules, max(growth.item.width for growth in growths)) if rows else ())
    for growth in growths:
        growth.grow([next(found) for _ in growth.frontier])
        engine.keep(growth.item.session_id, growth.aim())


class _Growth:
    """A tree being grown, as columns with an entry per node, and the frontier that the next forward pass expands.

    `shared` is the path that all of the frontier has in common, `cached` how many of the item's tokens and of that path
    the engine holds behind `base_length`, `below` the other nodes of the pass, between `shared` and the frontier. Of a
    tree that was begun elsewhere, `unexpanded` holds what the frontier is chosen from, a heap of (-value, node).
    """

    def __init__(self, engine: Engine, item: DraftItem) -> None:
        self.item = item
        self.end = item.base_length + len(item.token_ids)  # length of the context
        self._room = engine.card.tokens_max - self.end
        self._begun = len(item.tree) > 0
        self._stopped = False
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._confidences: list[float] = []
        self._proposers: list[int] = []
        self._values: list[float] = []
        self._depths: list[int] = []
        self._unexpanded: list[tuple[float, int]] = []
        self.frontier = [ROOT]
        self._shared: list[int] = []
        self._below: list[int] = []
        if self._begun:
            self._take_over(merge([item.tree]))
        self._cached = self._known(engine.tokens(item.session_id))

    def goes_on(self, step: int) -> bool:
        """Whether a pass is worth it; the first one over a begun tree is, for the context's sake."""
        if self._stopped:
            return False
        if self._begun:
            return step == 0 or bool(self.frontier)
        return bool(self.frontier) and step * self.item.beam < self._room

    def stops(self, stop: Callable[[str], bool]) -> bool:
        """Asks whether the growth is still wanted, and takes the answer to heart."""
        self._stopped = stop(self.item.session_id)
        return self._stopped

    def segment(self) -> Segment:
        """What the next pass runs: what is not cached of the shared path as a sequence, the rest of the frontier's
        paths as a tree below it. With one node in the frontier that is a single row."""
        context = self.item.token_ids
        start = min(self._cached, len(context) + len(self._shared) - 1)
        path = [self._token_ids[node] for node in self._shared[max(0, start - len(context)) :]]
        return Segment(
            self.item.session_id, self.item.base_length + start, (*context[start:], *path), self._tree_below()
        )

    def frontier_rows(self) -> list[int]:
        """Where in the segment's rows of logits the frontier's nodes are."""
        return [1 + self._below.index(node) for node in self.frontier] if self._below else [0] * len(self.frontier)

    def frontier_rules(self) -> list[RowRule]:
        """How the children of the frontier's nodes are picked."""
        depths = [self._depths[node] if node != ROOT else 0 for node in self.frontier]
        return [RowRule(self.item.sampling, self.end + depth) for depth in depths]

    def grow(self, found: Sequence[tuple[list[int], list[float]]]) -> None:
        """Hangs the children found below the frontier's nodes, and chooses the next frontier."""
        width, least, first = self.item.width, self.item.sibling_min, len(self._token_ids)
        for parent, (token_ids, confidences) in zip(self.frontier, found, strict=True):
            for rank, (token, confidence) in enumerate(zip(token_ids[:width], confidences[:width], strict=True)):
                if rank == 0 or confidence >= least:
                    self._add(parent, token, confidence, 1)
        fresh = range(first, len(self._token_ids))
        if self._begun:
            for node in fresh:
                heappush(self._unexpanded, (-self._values[node], node))
            self.frontier = self._take_best()
        else:
            best = sorted(fresh, key=lambda node: (-self._values[node], node))[: self.item.beam]
            self.frontier = [node for node in best if self._values[node] >= self.item.value_min]

    def aim(self) -> list[int]:
        """Turns to the next frontier; answers which nodes of the last segment's tree lead to all of it."""
        before, below = self._shared, self._below
        self._shared, self._below = self._split()
        common = _common_count(before, self._shared)
        ran = self._shared[common:] if below and common == len(before) else []
        kept = [below.index(node) for node in ran if node in below]
        self._cached = len(self.item.token_ids) + common + len(kept)
        return kept

    def result(self) -> DraftResult:
        columns = (self._token_ids, self._parents, self._confidences, self._proposers)
        tree = TokenTree(*map(tuple, columns))  # type: ignore[arg-type]  # map() has one type for all columns
        if self._stopped:
            return cancelled(self.item, tree)
        return DraftResult(self.item.session_id, Status.OK, self.end, tree)

    def _take_over(self, tree: TokenTree) -> None:
        for node, parent in enumerate(tree.parents):
            self._add(parent, tree.token_ids[node], tree.confidences[node], tree.proposers[node])
        leaves = set(range(len(tree))).difference(tree.parents)
        self._unexpanded = [(-self._values[node], node) for node in leaves]
        heapify(self._unexpanded)
        self.frontier = self._take_best()
        self._shared, self._below = self._split()

    def _known(self, held: Sequence[int]) -> int:
        """Tokens of context and shared path that are cached already: what the drafter guessed itself and was right
        about."""
        base, known = self.item.base_length, 0
        for token in chain(self.item.token_ids, (self._token_ids[node] for node in self._shared)):
            if base + known == len(held) or held[base + known] != token:
                break
            known += 1
        return known

    def _add(self, parent: int, token_id: int, confidence: float, proposers: int) -> None:
        """A new node; its parent does not have the token yet."""
        self._token_ids.append(token_id)
        self._parents.append(parent)
        self._confidences.append(confidence)
        self._proposers.append(proposers)
        self._values.append(confidence if parent == ROOT else self._values[parent] * confidence)
        self._depths.append(1 if parent == ROOT else self._depths[parent] + 1)

    def _take_best(self) -> list[int]:
        """The best unexpanded nodes, as long as their paths have room behind the context, all in one pass."""
        taken: list[int] = []
        run: set[int] = set()
        while self._unexpanded and len(taken) < self.item.beam:
            value, node = heappop(self._unexpanded)
            if -value < self.item.value_min:
                break
            with_node = run.union(self._path(node))
            if len(with_node) < self._room:
                taken.append(node)
                run = with_node
        return taken

    def _split(self) -> tuple[list[int], list[int]]:
        """The path that all of the frontier has in common, and the other nodes on its paths."""
        if len(self.frontier) == 1:
            return self._path(self.frontier[0]), []
        paths = [self._path(node) for node in self.frontier]
        shared = [nodes[0] for nodes in zip(*paths, strict=False) if len(set(nodes)) == 1]
        return shared, sorted({node for path in paths for node in path[len(shared) :]})

    def _path(self, node: int) -> list[int]:
        """Nodes from the root's child down to `node`."""
        path: list[int] = []
        while node != ROOT:
            path.append(node)
            node = self._parents[node]
        return path[::-1]

    def _tree_below(self) -> TokenTree:
        if not self._below:
            return EMPTY
        place = {node: index for index, node in enumerate(self._below)}
        return TokenTree(
            tuple(self._token_ids[node] for node in self._below),
            tuple(place.get(self._parents[node], ROOT) for node in self._below),
        )


def _common_count(first: Sequence[int], second: Sequence[int]) -> int:
    """How long both begin alike."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
