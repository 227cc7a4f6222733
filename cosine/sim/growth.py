"""A tree that a simulated drafter grows, as columns with an entry per node, and the forward passes that takes.

It follows `cosine.engine.drafting` to the row: a tree that starts empty grows level by level, one that was begun
elsewhere best value first. It knows no drafter; what hangs below a node is told to it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from cosine.core.plan import DraftItem
from cosine.core.running_ahead import Part
from cosine.core.tree import ROOT, TokenTree
from cosine.sim.library import Context, Script, key_after


@dataclass(slots=True)
class Growth:
    """A tree being grown below the `length` tokens of a context. Per node its value, the key of the place behind it and
    its depth.

    The next pass expands `frontier`, of a tree that was begun elsewhere the best of `unexpanded`; `shared` is the path
    that all of it has in common, `cached` how many of the item's tokens and of that path the cache holds behind the
    item's base, `below` the other nodes on the way to the frontier. `held` are the nodes whose tokens follow the
    context in the cache, `passes` the rows and cached tokens of every forward pass; one that need not run has no rows.
    """

    item: DraftItem
    length: int
    root_key: int
    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=lambda: [ROOT])
    unexpanded: set[int] = field(default_factory=set)
    shared: list[int] = field(default_factory=list)
    below: set[int] = field(default_factory=set)
    cached: int = 0
    held: list[int] = field(default_factory=list)
    passes: list[tuple[int, int]] = field(default_factory=list)

    def place(self, node: int) -> tuple[int, int]:
        """Length and key behind a node."""
        if node == ROOT:
            return self.length, self.root_key
        return self.length + self.depths[node], self.keys[node]

    def add(self, parent: int, token_id: int, confidence: float, key: int) -> int:
        self.token_ids.append(token_id)
        self.parents.append(parent)
        self.confidences.append(confidence)
        self.values.append(confidence if parent == ROOT else self.values[parent] * confidence)
        self.keys.append(key)
        self.depths.append(1 if parent == ROOT else self.depths[parent] + 1)
        return len(self.token_ids) - 1

    def path_to(self, node: int) -> list[int]:
        path: list[int] = []
        while node != ROOT:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def aim(self, candidates: Collection[int]) -> None:
        """Chooses what the next pass expands."""
        best = sorted(candidates, key=lambda node: (-self.values[node], node))[: self.item.beam]
        self.frontier = [node for node in best if self.values[node] >= self.item.value_min]

    def goes_on(self, number: int) -> bool:
        """Whether a pass of that number is worth it; the first one over a begun tree is, for the context's sake."""
        return bool(self.frontier) or (number == 0 and bool(self.item.tree))

    def turn_to(self, grown: Collection[int]) -> None:
        """The frontier has got these children: chooses the next one."""
        if self.item.tree:
            self.unexpanded = self.unexpanded.difference(self.frontier).union(grown)
        self.aim(self.unexpanded if self.item.tree else grown)
        self.keep()

    def split(self) -> tuple[list[int], set[int]]:
        """The path that all of the frontier has in common, and the other nodes on its paths."""
        paths = [self.path_to(node) for node in self.frontier]
        if len(paths) == 1:
            return paths[0], set()
        shared = [nodes[0] for nodes in zip(*paths, strict=False) if len(set(nodes)) == 1]
        return shared, {node for path in paths for node in path[len(shared) :]}

    def sequence(self) -> tuple[int, ...]:
        """The item's tokens and those of the shared path."""
        return (*self.item.token_ids, *(self.token_ids[node] for node in self.shared))

    def part(self) -> Part:
        """What the next pass runs of context and shared path: all that is not cached, at least the last token."""
        sequence = self.sequence()
        start = min(self.cached, len(sequence) - 1)
        return Part(self.item.session_id, self.item.base_length + start, sequence[start:])

    def run(self, part: Part) -> None:
        """Counts a pass over a part and all that hangs below it."""
        self.passes.append((len(part.token_ids) + len(self.below), part.base_length))

    def skip(self) -> None:
        """Counts a pass that need not be run."""
        self.passes.append((0, 0))

    def keep(self) -> None:
        """The cache keeps as much of the next frontier's shared path as this pass has run."""
        shared, below = self.split()
        common = common_count(self.shared, shared)
        ran = shared[common:] if common == len(self.shared) else []
        done = [node for node in ran if node in self.below]
        self.held = self.shared + done
        self.cached = len(self.item.token_ids) + common + len(done)
        self.shared, self.below = shared, below

    def tree(self) -> TokenTree:
        count = len(self.token_ids)
        return TokenTree(tuple(self.token_ids), tuple(self.parents), tuple(self.confidences), (1,) * count)


def begun(context: Context, item: DraftItem, held: Sequence[int]) -> Growth:
    """The growth that starts from a step's tree, behind a context that has the step's tokens; `held` is what the cache
    held before."""
    growth = Growth(item, len(context.token_ids), context.key)
    if item.tree:
        _take_over(growth, item.tree, context.script)
    growth.cached = common_count(held[item.base_length :], growth.sequence())
    return growth


def _take_over(growth: Growth, tree: TokenTree, script: Script) -> None:
    growth.token_ids, growth.parents = list(tree.token_ids), list(tree.parents)
    growth.confidences = list(tree.confidences)
    values, keys, depths = growth.values, growth.keys, growth.depths
    for token, parent, sure in zip(tree.token_ids, tree.parents, tree.confidences, strict=True):
        depth, value, key = (
            (0, 1.0, growth.root_key) if parent == ROOT else (depths[parent], values[parent], keys[parent])
        )
        depths.append(depth + 1)
        values.append(value * sure)
        keys.append(key_after(script, growth.length + depth, key, token))
    growth.unexpanded = set(range(len(tree))).difference(tree.parents)
    growth.aim(growth.unexpanded)
    growth.shared, growth.below = growth.split()


def common_count(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length
