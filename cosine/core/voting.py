"""Majority-voted drafting: the paths of all drafters are weighed, one path goes to the target (Minions, 2402.15678).

A node weighs what its proposers weigh together; from the root the heaviest child is taken at every depth, down to the
end of a path that some drafter has said. All paths must be there, whole: a tree that was pruned before has lost votes.
After a verdict a drafter whose tokens were accepted more often than `THRESHOLD` gains weight, another loses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosine.core.tree import ROOT, TokenTree, children, select

THRESHOLD = 0.5
REWARD = 1.1
PENALTY = 0.9
WEIGHT_MIN, WEIGHT_MAX = 0.05, 20.0
FADE = 0.9
DRAFTERS_MAX = 1024


class Votes:
    """Weights of drafters, learned from verdicts; 1 to begin with."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._shares: dict[str, float] = {}

    def weight(self, drafter: str) -> float:
        """What a drafter's vote weighs."""
        return self._weights.get(drafter, 1.0)

    def note(self, drafter: str, hit_count: int, try_count: int) -> None:
        """Of a drafter's tokens at places whose pick is known, so many were right. Of very many drafters the one that
        was noted least recently is forgotten."""
        if not try_count:
            return
        share = self._shares.pop(drafter, THRESHOLD)
        share = self._shares[drafter] = FADE * share + (1 - FADE) * hit_count / try_count
        factor = REWARD if share >= THRESHOLD else PENALTY
        self._weights[drafter] = min(WEIGHT_MAX, max(WEIGHT_MIN, self.weight(drafter) * factor))
        if len(self._shares) > DRAFTERS_MAX:
            oldest = next(iter(self._shares))
            del self._shares[oldest], self._weights[oldest]

    def elect(self, tree: TokenTree, drafters: Sequence[str]) -> TokenTree:
        """The path of the heaviest votes; ties go to the more confident token, then to the lower id."""
        weights = [self.weight(drafter) for drafter in drafters]
        heavy = [sum(weight for bit, weight in enumerate(weights) if bits >> bit & 1) for bits in tree.proposers]
        kids = children(tree)
        path: list[int] = []
        node = ROOT
        while node in kids:
            node = max(kids[node].values(), key=lambda kid: (heavy[kid], tree.confidences[kid], -tree.token_ids[kid]))
            path.append(node)
        return select(tree, path)
