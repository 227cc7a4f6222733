"""From a context to guesses on any engine: grow a tree a few steps deep, all sessions of a step in one forward pass.

Nodes are expanded best value first, `beam` per depth; each gets its `width` best children. Drafts use the target's
noise (core.noise), so drafter and target tend to pick the same token at any temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cosine.core.picking import RowRule
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, hang, path_to
from cosine.engine.base import Engine, Segment
from cosine.engine.verifying import Status, check


@dataclass(frozen=True, slots=True)
class DraftItem:
    """One session of a step; see DraftItem in drafter.proto."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    step_count: int = 1
    width: int = 1
    beam: int = 1
    sampling: Sampling = GREEDY
    value_min: float = 0.0


@dataclass(frozen=True, slots=True)
class DraftResult:
    """Guesses for one item, or why there are none."""

    session_id: str
    status: Status
    cached_length: int = 0
    tree: TokenTree = EMPTY


@dataclass(slots=True)
class _Growth:
    """A tree being grown: values of all nodes, and the frontier that the next forward pass expands.

    `shared` is the path that all of the frontier has in common, `cached` how much of it the engine holds behind the
    item's tokens, `below` the other nodes of the pass, between `shared` and the frontier.
    """

    item: DraftItem
    grower: Grower = field(default_factory=Grower)
    value: list[float] = field(default_factory=list)
    frontier: list[int] = field(default_factory=lambda: [ROOT])
    shared: list[int] = field(default_factory=list)
    cached: int = 0
    below: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Length of the context."""
        return self.item.base_length + len(self.item.token_ids)


def draft(engine: Engine, items: Sequence[DraftItem]) -> list[DraftResult]:
    """Results in the order of the items. Sessions must differ."""
    problems = [check(engine, item.session_id, item.base_length, item.token_ids) for item in items]
    growths = [_Growth(item) for item, problem in zip(items, problems, strict=True) if problem is None]
    for step in range(max((growth.item.step_count for growth in growths), default=0)):
        alive = [growth for growth in growths if step < growth.item.step_count and growth.frontier]
        alive = [growth for growth in alive if growth.end + step * growth.item.beam < engine.card.tokens_max]
        if alive:
            _expand(engine, alive, step)
    done = iter(growths)
    return [
        _result(next(done)) if problem is None else DraftResult(item.session_id, problem.status, problem.cached_length)
        for item, problem in zip(items, problems, strict=True)
    ]


def _expand(engine: Engine, growths: Sequence[_Growth], step: int) -> None:
    segments = [_segment(growth) if step else _skip_known(engine, growth.item) for growth in growths]
    logits = engine.forward(segments)
    first_row = 0
    rows: list[int] = []
    rules: list[RowRule] = []
    for growth, segment in zip(growths, segments, strict=True):
        rows += [first_row + 1 + growth.below.index(node) if growth.below else first_row for node in growth.frontier]
        rules += [RowRule(growth.item.sampling, growth.end + step)] * len(growth.frontier)
        first_row += 1 + len(segment.tree)
    found = iter(logits.children(rows, rules, max(growth.item.width for growth in growths)))
    for growth in growths:
        _grow(growth, [(node, next(found)) for node in growth.frontier])
        _keep(engine, growth)


def _segment(growth: _Growth) -> Segment:
    """What the next pass runs: what is not cached of the shared path as a sequence, the rest of the frontier's paths as
    a tree below it. With one node in the frontier that is a single row."""
    tree = growth.grower.tree()
    sequence = [*growth.item.token_ids, *(tree.token_ids[node] for node in growth.shared)]
    start = min(len(growth.item.token_ids) + growth.cached, len(sequence) - 1)
    root = growth.shared[-1] if growth.shared else ROOT
    return Segment(
        growth.item.session_id,
        growth.item.base_length + start,
        tuple(sequence[start:]),
        hang(TokenTree(tree.token_ids, tree.parents), root, growth.below),
    )


def _keep(engine: Engine, growth: _Growth) -> None:
    """Caches as much of the next frontier's shared path as this pass has run."""
    tree = growth.grower.tree()
    paths = [path_to(tree, node) for node in growth.frontier]
    shared = [nodes[0] for nodes in zip(*paths, strict=False) if len(set(nodes)) == 1]
    done = [growth.below.index(node) for node in shared[len(growth.shared) :] if node in growth.below]
    engine.keep(growth.item.session_id, done)
    growth.cached = len(growth.shared) + len(done)
    growth.shared = shared
    growth.below = sorted({node for path in paths for node in path[len(shared) :]})


def _skip_known(engine: Engine, item: DraftItem) -> Segment:
    """What the drafter guessed for itself and was right about is in its cache already."""
    held = engine.tokens(item.session_id)
    known = 0
    while (
        known < len(item.token_ids) - 1
        and item.base_length + known < len(held)
        and held[item.base_length + known] == item.token_ids[known]
    ):
        known += 1
    return Segment(item.session_id, item.base_length + known, item.token_ids[known:])


def _grow(growth: _Growth, found: Sequence[tuple[int, tuple[list[int], list[float]]]]) -> None:
    item = growth.item
    fresh: list[int] = []
    for parent, (token_ids, confidences) in found:
        base = 1.0 if parent == ROOT else growth.value[parent]
        for token, confidence in list(zip(token_ids, confidences, strict=True))[: item.width]:
            fresh.append(growth.grower.add(parent, token, confidence, 1))
            growth.value.append(base * confidence)
    fresh.sort(key=lambda node: (-growth.value[node], node))
    growth.frontier = [node for node in fresh[: item.beam] if growth.value[node] >= item.value_min]


def _result(growth: _Growth) -> DraftResult:
    item = growth.item
    return DraftResult(item.session_id, Status.OK, growth.end, growth.grower.tree())
