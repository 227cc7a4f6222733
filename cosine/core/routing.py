"""Which drafters work on a request: a score per drafter model, learned from verdicts, with exploration.

After a verdict every drafter that took part gets a `Credit` for the places of the committed path where it had something
to say. Two ways to count are built (CoSine's formula is a reconstruction, so it is measured, not believed):

- HITS: a committed token that it proposed counts one, its first miss nothing.
- HARMONIC: every place counts the harmonic mean of its confidence in its own token there and the agreement of that
  token with the committed one (cosine of the target's embeddings). Confidence alone buys nothing, so an over-confident
  stranger does not win. Drafts are trees: a drafter's own token is the one it is surest of or, where that counts more,
  the committed one if it has proposed that too.

On the test bed's recordings (tests/sim) and in the whole mesh in virtual time neither is ahead of the other everywhere.
HITS asks neither fusion nor verifier for anything more: `SCORE`. HARMONIC is only as good where it knows each
proposer's own confidence (a tree's `opinions`); with the highest of a node's proposers for all of them, it finds fewer
specialists.

A request's score is the average over its places, old rounds fading (the moving average of CoSine), starting from a
prior. Its first rounds ask more drafters than later ones, half as many each time, so that one verdict says something of
each. After that the best scores win, with a bonus for the rarely tried: a large one while the request's accepted length
is below a threshold (explore), a small one above it (exploit).

Drafters are names of models here. Which replica serves one is `placement`'s; drafting, trees' growth and the verifier
are nobody's business in this module. Source: CoSine, arXiv 2503.10325, adaptive routing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from cosine.core.events import SessionVerdict
from cosine.core.tree import ROOT, TokenTree, children, depths

FADE = 0.9
PRIOR_TRIES = 1.5
SHARED_FADE = 0.98
FIRST_GUESS = 0.5
LENGTH_FADE = 0.7
LENGTH_MIN = 2.5  # with fewer tokens per verdict a request explores
EXPLORE = 0.25  # what the bonus for the rarely tried weighs then
EXPLOIT = 0.1


class Score(Enum):
    """What a drafter's token is worth; see the module."""

    HITS = "hits"
    HARMONIC = "harmonic"


SCORE = Score.HITS


@dataclass(frozen=True, slots=True)
class Credit:
    """One drafter's part in one verdict: what its tokens were worth (a hit 1, under HARMONIC also parts of 1), summed
    over the `tries` places where it was judged."""

    hits: float
    tries: int


class Prior(Protocol):
    """What is known of drafters before a request has seen them; learns from every request's rounds."""

    def prior(self, drafter: str) -> float:
        """Expected worth per place of a drafter's tokens, 0 to 1."""
        ...

    def note(self, drafter: str, credit: Credit) -> None:
        """One round of a request."""
        ...


@dataclass(slots=True)
class SharedScores:
    """How each drafter did over all requests, whatever they are about: the prior where nothing better is known."""

    rates: dict[str, float] = field(default_factory=dict)

    def prior(self, drafter: str) -> float:
        """Expected worth per place of a drafter in a request nothing is known of."""
        return self.rates.get(drafter, FIRST_GUESS)

    def note(self, drafter: str, credit: Credit) -> None:
        """One round of any request."""
        if credit.tries:
            self.rates[drafter] = SHARED_FADE * self.prior(drafter) + (1 - SHARED_FADE) * credit.hits / credit.tries


@dataclass(slots=True)
class Standing:
    """One drafter in one request: faded sums of what its tokens were worth, and of its tries."""

    hits: float = 0.0
    tries: float = 0.0


NOT_TRIED = Standing()


@dataclass(slots=True)
class Route:
    """One request's scores; `accepted_length` is the moving average of its tokens per verdict, 0 before the first."""

    shared: Prior
    standings: dict[str, Standing] = field(default_factory=dict)
    round_count: int = 0
    accepted_length: float = 0.0

    def rate(self, drafter: str) -> float:
        """Score of a drafter in this request: the worth per place to expect of it."""
        standing = self.standings.get(drafter) or NOT_TRIED
        return (standing.hits + PRIOR_TRIES * self.shared.prior(drafter)) / (standing.tries + PRIOR_TRIES)

    def choose(self, drafters: Sequence[str], count: int, first_count: int = 0) -> tuple[str, ...]:
        """The `count` best of the drafters that are up, best first; equals in the order of their names.

        A request's first round takes `first_count` where that is more, its second half of them, its third a quarter.
        """
        count = max(count, -(-first_count >> min(self.round_count, 16)))
        weight = EXPLORE if self.accepted_length < LENGTH_MIN else EXPLOIT
        seen = math.log(2 + self.round_count)
        worths = []
        for drafter in drafters:
            tries = (self.standings.get(drafter) or NOT_TRIED).tries
            worths.append((-self.rate(drafter) - weight * math.sqrt(seen / (1.0 + tries)), drafter))
        return tuple([drafter for _, drafter in sorted(worths)[:count]])

    def note(self, credits: Mapping[str, Credit], accepted_length: int | None = None) -> None:
        """The outcome of one round: every participant's credit, and how many tokens the verdict committed (left out:
        as many as the best participant was judged on)."""
        if accepted_length is None:
            accepted_length = max((credit.tries for credit in credits.values()), default=0)
        fade = LENGTH_FADE if self.round_count else 0.0
        self.accepted_length = fade * self.accepted_length + (1 - fade) * accepted_length
        self.round_count += 1
        for drafter, credit in credits.items():
            standing = self.standings.setdefault(drafter, Standing())
            standing.hits = FADE * standing.hits + credit.hits
            standing.tries = FADE * standing.tries + credit.tries
            self.shared.note(drafter, credit)


def judge(
    score: Score,
    drafters: Sequence[str],
    tree: TokenTree,
    verdict: SessionVerdict,
    depth: int | None = None,
) -> dict[str, Credit]:
    """Every drafter's part in a verdict on a tree; bit i of a node's proposers is `drafters[i]`.

    HARMONIC wants a verdict that was asked for agreements (`BatchItem.judge`); without them an accepted token agrees
    wholly and any other not at all. It wants the tree's opinions (`DraftPlan.opinions`); without them a node's
    confidence stands for each of its proposers'. A drafter of which the tree holds nothing has missed once.
    `depth` is the tree's, from callers who have measured it.
    """
    if score is Score.HITS:
        deepest = max(depths(tree), default=0) if depth is None else depth
        return credits(drafters, [tree.proposers[node] for node in verdict.nodes], deepest)
    agreements = dict(zip(verdict.judged_nodes, verdict.agreements, strict=True)) | dict.fromkeys(verdict.nodes, 1.0)
    kids = children(tree)
    places = [list(kids[parent].values()) for parent in (ROOT, *verdict.nodes) if parent in kids]
    found: dict[str, Credit] = {}
    for bit, drafter in enumerate(drafters):
        said = [[node for node in place if tree.proposers[node] >> bit & 1] for place in places]
        sure = {node: _own_confidence(tree, node, bit) for place in said for node in place}
        worths = [_worth(place, sure, verdict.nodes, agreements) for place in said if place]
        found[drafter] = Credit(sum(worths), max(1, len(worths)))
    return found


def credits(drafters: Sequence[str], accepted_proposers: Sequence[int], depth: int) -> dict[str, Credit]:
    """HITS: every drafter's part in a verdict on a tree `depth` deep, from its accepted nodes' proposers, root down."""
    result: dict[str, Credit] = {}
    for bit, drafter in enumerate(drafters):
        hits = 0
        while hits < len(accepted_proposers) and accepted_proposers[hits] >> bit & 1:
            hits += 1
        result[drafter] = Credit(hits, min(depth, hits + 1))
    return result


def _own_confidence(tree: TokenTree, node: int, bit: int) -> float:
    """How sure one of a node's proposers said it was."""
    if not tree.opinions:
        return tree.confidences[node]
    return tree.opinions[node][(tree.proposers[node] & ((1 << bit) - 1)).bit_count()]


def _worth(
    own: Sequence[int], confidences: Mapping[int, float], accepted: Sequence[int], agreements: Mapping[int, float]
) -> float:
    """HARMONIC for a drafter at one place, where it proposed the nodes `own`."""
    surest = max(own, key=lambda node: (confidences[node], -node))
    counted = {surest} | {node for node in own if node in accepted}
    return max(harmonic_mean(confidences[node], agreements.get(node, 0.0)) for node in counted)


def harmonic_mean(confidence: float, agreement: float) -> float:
    """Of two numbers of which negative ones count as 0."""
    low, high = sorted((max(0.0, confidence), max(0.0, agreement)))
    return 2 * low * high / (low + high) if low else 0.0
