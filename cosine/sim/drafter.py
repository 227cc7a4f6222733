"""A drafter that answers from a recording: the trees a real one would grow, and the forward passes that would take.

It follows `cosine.engine.drafting` to the row: a tree that starts empty grows level by level, one that was begun
elsewhere best value first, and what the drafter guessed itself and was right about is in its cache.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from cosine.core.plan import Guess, StepItem
from cosine.core.tree import ROOT, TokenTree
from cosine.sim.device import Run
from cosine.sim.library import Context, Library, Script, key_after
from cosine.sim.profile import DrafterDevice


@dataclass(slots=True)
class Growth:
    """A tree being grown below the `length` tokens of a context. Per node its value, the key of the place behind it and
    its depth.

    The next pass expands `frontier`; `shared` is the path that all of it has in common, `cached` how many of the item's
    tokens and of that path the cache holds behind the item's base, `below` the other nodes on the way to the frontier.
    `held` are the nodes whose tokens follow the context in the cache, `passes` the rows and the cached tokens of every
    forward pass.
    """

    item: StepItem
    length: int
    root_key: int
    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    frontier: list[int] = field(default_factory=lambda: [ROOT])
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

    def split(self) -> tuple[list[int], set[int]]:
        """The path that all of the frontier has in common, and the other nodes on its paths."""
        paths = [self.path_to(node) for node in self.frontier]
        if len(paths) == 1:
            return paths[0], set()
        shared = [nodes[0] for nodes in zip(*paths, strict=False) if len(set(nodes)) == 1]
        return shared, {node for path in paths for node in path[len(shared) :]}

    def run(self) -> None:
        """Counts a pass over what is not cached of the shared path, and the other nodes."""
        sequence = len(self.item.token_ids) + len(self.shared)
        start = min(self.cached, sequence - 1)
        self.passes.append((sequence - start + len(self.below), self.item.base_length + start))

    def keep(self) -> None:
        """The cache keeps as much of the next frontier's shared path as this pass has run."""
        shared, below = self.split()
        common = _common(self.shared, shared)
        ran = shared[common:] if common == len(self.shared) else []
        done = [node for node in ran if node in self.below]
        self.held = self.shared + done
        self.cached = len(self.item.token_ids) + common + len(done)
        self.shared, self.below = shared, below

    def tree(self) -> TokenTree:
        count = len(self.token_ids)
        return TokenTree(tuple(self.token_ids), tuple(self.parents), tuple(self.confidences), (1,) * count)


class Drafter:
    """One drafter: a specialist of the library on a device, with a cache per session."""

    def __init__(self, library: Library, specialist: int, device: DrafterDevice) -> None:
        self.drafted_count = 0
        self._library = library
        self._specialist = specialist
        self._device = device
        self._contexts: dict[str, Context] = {}

    def compute(self, items: Sequence[StepItem]) -> Run[Guess]:
        """Answers steps. Their passes run together, so that a run takes as many as its deepest step."""
        rows: list[int] = []
        cached: list[int] = []
        guesses: list[Guess] = []
        for item in items:
            growth = self._grow(item)
            guesses.append(Guess(item.session_id, None if growth is None else growth.tree(), growth is None))
            for number, (row_count, cached_count) in enumerate(growth.passes if growth else ()):
                if number == len(rows):
                    rows.append(0)
                    cached.append(0)
                rows[number] += row_count
                cached[number] += cached_count
        seconds = sum(map(self._device.forward_ms, rows, cached)) / 1000
        return Run(guesses, seconds, seconds / max(1, len(rows)))

    @staticmethod
    def give_up(items: Sequence[StepItem]) -> list[Guess]:
        """What is answered to a step that was cancelled."""
        return [Guess(item.session_id, None) for item in items]

    def close(self, session_ids: Sequence[str]) -> None:
        """Frees sessions."""
        for session_id in session_ids:
            self._contexts.pop(session_id, None)

    def _grow(self, item: StepItem) -> Growth | None:
        """The tree of one step; None where the cache lacks the step's base."""
        context = self._contexts.get(item.session_id)
        if item.base_length > (0 if context is None else len(context.token_ids)):
            return None
        if context is None:
            context = self._contexts[item.session_id] = Context(self._library.script_of(item.token_ids))
        held = context.token_ids[item.base_length :]
        context.append(item.base_length, item.token_ids)
        growth = _begun(context, item)
        unexpanded = set(range(len(item.tree))).difference(growth.parents)
        if item.tree:
            growth.aim(unexpanded)
            growth.shared, growth.below = growth.split()
        growth.cached = _common(held, [*item.token_ids, *(growth.token_ids[node] for node in growth.shared)])
        for number in range(item.step_count):
            if not growth.frontier and (number or not item.tree):
                break  # the first pass over a begun tree caches the context even where nothing can grow
            growth.run()
            unexpanded.difference_update(growth.frontier)
            grown = self._expand(context.script, growth)
            unexpanded.update(grown)
            growth.aim(unexpanded if item.tree else grown)
            growth.keep()
        context.append(growth.length, [growth.token_ids[node] for node in growth.held])
        return growth

    def _expand(self, script: Script, growth: Growth) -> list[int]:
        """Gives each node of the frontier its children; those."""
        grown: list[int] = []
        item = growth.item
        greedily = item.sampling.temperature == 0.0
        for parent in growth.frontier:
            length, key = growth.place(parent)
            for token, sure in self._library.children(self._specialist, greedily, script, length, key)[: item.width]:
                grown.append(growth.add(parent, token, sure, key_after(script, length, key, token)))
        self.drafted_count += len(grown)
        return grown


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


def _begun(context: Context, item: StepItem) -> Growth:
    """The growth that starts from a step's tree."""
    growth = Growth(item, len(context.token_ids), context.key)
    tree, script = item.tree, context.script
    if not tree:
        return growth
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
    return growth
