"""Token trees: guesses below the last committed token, and the operations every part of the mesh shares.

The root is the last committed token; it is not stored. Node `i` has a token, a parent (`ROOT` or an earlier
node), a confidence (the proposer's estimate that the target picks the token once it stands at the parent)
and a bit set of proposers. The same token at the same depth below different parents are different nodes;
the same token twice below one parent is one node that remembers all its proposers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosine.core.errors import BadRequest

ROOT = -1


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A tree in parent-before-child order. `confidences` and `proposers` may be empty where nobody needs them."""

    token_ids: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    proposers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)


EMPTY = TokenTree()


def validate(tree: TokenTree, vocab_size: int) -> None:
    """Raises BadRequest where a tree from the wire is malformed or names a token outside the vocabulary."""
    count = len(tree)
    if len(tree.parents) != count or any(len(extra) not in (0, count) for extra in (tree.confidences, tree.proposers)):
        raise BadRequest("TREE_MALFORMED", "a tree's lists must have one entry per node")
    if any(not ROOT <= parent < node for node, parent in enumerate(tree.parents)):
        raise BadRequest("TREE_MALFORMED", "a node's parent must come before it")
    if any(not 0 <= token < vocab_size for token in tree.token_ids):
        raise BadRequest("TOKEN_OUT_OF_RANGE", f"token ids must lie in 0..{vocab_size - 1}")


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
    )


class Grower:
    """Builds a tree node by node; adding a token that its parent already has joins the two."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._confidences: list[float] = []
        self._proposers: list[int] = []
        self._places: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def add(self, parent: int, token_id: int, confidence: float, proposers: int) -> int:
        """The node of `token_id` below `parent`: a new one, or the old one with confidence and proposers joined."""
        node = self._places.get((parent, token_id))
        if node is None:
            node = len(self._token_ids)
            self._places[(parent, token_id)] = node
            self._token_ids.append(token_id)
            self._parents.append(parent)
            self._confidences.append(confidence)
            self._proposers.append(proposers)
            return node
        self._confidences[node] = max(self._confidences[node], confidence)
        self._proposers[node] |= proposers
        return node

    def claim(self, node: int, proposers: int) -> None:
        """Adds proposers to a node."""
        self._proposers[node] |= proposers

    def child(self, parent: int, token_id: int) -> int | None:
        """The node of a token below `parent`, if there is one."""
        return self._places.get((parent, token_id))

    def token_id(self, node: int) -> int:
        """Token of a node."""
        return self._token_ids[node]

    def confidence(self, node: int) -> float:
        """Confidence of a node, the highest of its proposers'."""
        return self._confidences[node]

    def tree(self) -> TokenTree:
        """The tree so far."""
        return TokenTree(tuple(self._token_ids), tuple(self._parents), tuple(self._confidences), tuple(self._proposers))
