"""Token trees: guesses below the last committed token, and the operations every part of the mesh shares.

The root is the last committed token; it is not stored. Node `i` has a token, a parent (`ROOT` or an earlier
node), a confidence (the proposer's estimate that the target picks the token once it stands at the parent)
and a bit set of proposers. The same token at the same depth below different parents are different nodes;
the same token twice below one parent is one node that remembers all its proposers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ge

import numpy as np
from numpy.typing import NDArray

from cosine.core.errors import BadRequest

ROOT = -1
CONFIDENCE_MAX = 1.0 + 1e-5  # a softmax in single precision may end a little above one; it is taken for one
NO_KIDS: Mapping[int, int] = {}


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A tree in parent-before-child order. `confidences` and `proposers` may be empty where nobody needs them, and so
    may `opinions`: per node how sure each of its proposers said it was, in the order of their bits."""

    token_ids: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    proposers: tuple[int, ...] = ()
    opinions: tuple[tuple[float, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)


EMPTY = TokenTree()


def validate(tree: TokenTree, vocab_size: int) -> None:
    """Raises BadRequest where a tree from the wire is malformed or names a token outside the vocabulary."""
    count = len(tree)
    if len(tree.parents) != count or any(len(extra) not in (0, count) for extra in (tree.confidences, tree.proposers)):
        raise BadRequest("TREE_MALFORMED", "a tree's lists must have one entry per node")
    if not count:
        return
    if min(tree.parents) < ROOT or any(map(ge, tree.parents, range(count))):
        raise BadRequest("TREE_MALFORMED", "a node's parent must come before it")
    if min(tree.token_ids) < 0 or max(tree.token_ids) >= vocab_size:
        raise BadRequest("TOKEN_OUT_OF_RANGE", f"token ids must lie in 0..{vocab_size - 1}")


def with_confidences(tree: TokenTree) -> TokenTree:
    """A tree from the wire of which every node needs a confidence: the same, with none above one. Raises BadRequest
    where one is missing or lies outside 0..1."""
    if len(tree.confidences) != len(tree):
        raise BadRequest("TREE_MALFORMED", "every node needs a confidence")
    if any(not 0.0 <= confidence <= CONFIDENCE_MAX for confidence in tree.confidences):
        raise BadRequest("CONFIDENCE", "every confidence must lie in 0..1")
    if max(tree.confidences, default=0.0) <= 1.0:
        return tree
    return replace(tree, confidences=tuple(min(1.0, confidence) for confidence in tree.confidences))


def chain(token_ids: Sequence[int], confidences: Sequence[float] = (), proposer: int = 0) -> TokenTree:
    """One path, the first token below the root."""
    count = len(token_ids)
    return TokenTree(tuple(token_ids), tuple(range(ROOT, count - 1)), tuple(confidences), (1 << proposer,) * count)


def depths(tree: TokenTree) -> list[int]:
    """Distance of each node from the root, 1 for the root's children."""
    result: list[int] = []
    for parent in tree.parents:
        result.append(1 if parent == ROOT else result[parent] + 1)
    return result


def values(tree: TokenTree) -> list[float]:
    """Product of confidences from the root to each node: the chance that the node is committed."""
    result: list[float] = []
    for parent, confidence in zip(tree.parents, tree.confidences, strict=True):
        result.append(confidence * (1.0 if parent == ROOT else result[parent]))
    return result


def children(tree: TokenTree) -> dict[int, dict[int, int]]:
    """Per parent (ROOT included where it has any), the child node of each token."""
    result: dict[int, dict[int, int]] = {}
    for node, (parent, token) in enumerate(zip(tree.parents, tree.token_ids, strict=True)):
        result.setdefault(parent, {})[token] = node
    return result


def ancestor_mask(tree: TokenTree) -> NDArray[np.bool_]:
    """`[1 + nodes, 1 + nodes]`: row 0 is the root; true where the row's node sees the column's."""
    size = len(tree) + 1
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[0, 0] = True
    for node, parent in enumerate(tree.parents):
        mask[node + 1] = mask[parent + 1]
        mask[node + 1, node + 1] = True
    return mask


def path_to(tree: TokenTree, node: int) -> list[int]:
    """Nodes from the root's child down to `node`; empty for ROOT."""
    path: list[int] = []
    while node != ROOT:
        path.append(node)
        node = tree.parents[node]
    return path[::-1]


def path_tokens(tree: TokenTree, node: int) -> list[int]:
    """Tokens on the way from the root (left out) down to `node`."""
    return [tree.token_ids[step] for step in path_to(tree, node)]


def merge(trees: Iterable[TokenTree]) -> TokenTree:
    """One tree of all paths. Equal tokens below one parent become one node: highest confidence, all proposers."""
    merged = Grower()
    for tree in trees:
        place = {ROOT: ROOT}
        for node, parent in enumerate(tree.parents):
            place[node] = merged.add(
                place[parent],
                tree.token_ids[node],
                tree.confidences[node] if tree.confidences else 1.0,
                tree.proposers[node] if tree.proposers else 0,
            )
    return merged.tree()


def select(tree: TokenTree, keep: Sequence[int]) -> TokenTree:
    """The tree of the nodes in `keep` (ascending, and closed under parents)."""
    return hang(tree, ROOT, keep)


def prune(tree: TokenTree, node_budget: int) -> TokenTree:
    """The `node_budget` nodes of the highest value; earlier nodes win ties, so parents always stay."""
    if len(tree) <= node_budget:
        return tree
    value = values(tree)
    ranked = sorted(range(len(tree)), key=lambda node: (-value[node], node))
    return select(tree, sorted(ranked[:node_budget]))


def hang(tree: TokenTree, root: int, keep: Sequence[int]) -> TokenTree:
    """The tree of the nodes in `keep` (ascending, each below `root` or another of them) with `root` as its root."""
    place = {root: ROOT} | {node: index for index, node in enumerate(keep)}
    return TokenTree(
        tuple(tree.token_ids[node] for node in keep),
        tuple(place[tree.parents[node]] for node in keep),
        tuple(tree.confidences[node] for node in keep) if tree.confidences else (),
        tuple(tree.proposers[node] for node in keep) if tree.proposers else (),
        tuple(tree.opinions[node] for node in keep) if tree.opinions else (),
    )


class Grower:
    """Builds a tree node by node; adding a token that its parent already has joins the two."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._confidences: list[float] = []
        self._proposers: list[int] = []
        self._kids: dict[int, dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def add(self, parent: int, token_id: int, confidence: float, proposers: int) -> int:
        """The node of `token_id` below `parent`: a new one, or the old one with confidence and proposers joined."""
        return self.graft((parent,), ((ROOT, token_id, confidence),), proposers)[1]

    def graft(self, stock: Sequence[int], scion: Iterable[tuple[int, int, float]], proposers: int) -> list[int]:
        """Adds many nodes (parent, token, confidence); where `stock` and each of them are now.

        Their parents count from ROOT, which is the first node of `stock`, through its other nodes to the nodes that
        went before. It is the inner loop of fusion.
        """
        places, kids, token_ids, confidences = list(stock), self._kids, self._token_ids, self._confidences
        for local, token_id, confidence in scion:
            parent = places[1 + local]
            below = kids.get(parent)
            if below is None:
                below = kids[parent] = {}
            node = below.get(token_id)
            if node is None:
                node = below[token_id] = len(token_ids)
                token_ids.append(token_id)
                self._parents.append(parent)
                confidences.append(confidence)
                self._proposers.append(proposers)
            else:
                if confidence > confidences[node]:
                    confidences[node] = confidence
                self._proposers[node] |= proposers
            places.append(node)
        return places

    def claim(self, nodes: Iterable[int], proposers: int) -> None:
        """Adds proposers to nodes."""
        for node in nodes:
            self._proposers[node] |= proposers

    def child(self, parent: int, token_id: int) -> int | None:
        """The node of a token below `parent`, if there is one."""
        return self._kids.get(parent, NO_KIDS).get(token_id)

    def kids(self, parent: int) -> Collection[int]:
        """The nodes below `parent`, in the order they came."""
        return self._kids.get(parent, NO_KIDS).values()

    def leaves(self) -> list[int]:
        """The nodes that nothing hangs below, in ascending order."""
        return [node for node in range(len(self._token_ids)) if node not in self._kids]

    def token_id(self, node: int) -> int:
        """Token of a node."""
        return self._token_ids[node]

    def confidence(self, node: int) -> float:
        """Confidence of a node, the highest of its proposers'."""
        return self._confidences[node]

    def proposer_count(self, node: int) -> int:
        """How many have proposed a node."""
        return self._proposers[node].bit_count()

    def below(self, root: int) -> tuple[Grower, dict[int, int]]:
        """What hangs below a node, as a tree whose proposers are yet to be claimed; and where each of its nodes, and
        the root, has gone."""
        left, place = Grower(), {root: ROOT}
        for node in range(root + 1, len(self._token_ids)):
            above = place.get(self._parents[node])
            if above is not None:
                place[node] = left.add(above, self._token_ids[node], self._confidences[node], 0)
        return left, place

    def tree(self) -> TokenTree:
        """The tree so far."""
        return TokenTree(tuple(self._token_ids), tuple(self._parents), tuple(self._confidences), tuple(self._proposers))
