"""Sample and match: walk the tree along the target's own picks.

The committed tokens are picks of the target, one after the other, so their law is the target's for any tree
whatever: drafts decide only how many come out of one forward pass. (The usual `min(1, p/q)` rule would be
wrong for fused tokens, which follow no single drafter's law.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cosine.core.tree import ROOT, TokenTree, children


@dataclass(frozen=True, slots=True)
class Walk:
    """What a verdict commits: `nodes` of the tree from the root down, and their tokens plus one bonus token."""

    nodes: tuple[int, ...]
    token_ids: tuple[int, ...]


def walk(tree: TokenTree, pick: Callable[[int, tuple[int, ...]], int]) -> Walk:
    """Follows the tree while a child carries the pick.

    `pick(node, path)` is the target's token at a node (ROOT included), `path` the committed tokens below the root.
    """
    kids = children(tree)
    nodes: list[int] = []
    path: tuple[int, ...] = ()
    node: int | None = ROOT
    while node is not None:
        token = pick(node, path)
        path += (token,)
        node = kids.get(node, {}).get(token)
        if node is not None:
            nodes.append(node)
    return Walk(tuple(nodes), path)
