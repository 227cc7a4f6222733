"""How far a plan drafts, by its strategy's way of deciding: nobody's, predicted goodput, Minions' trend, DSI's cover.

Part of the planner. What is predicted is `goodput`'s and `pace`'s; this file only asks the right one and remembers
what it must between plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosine.core import speculation
from cosine.core.feedback import Feedback
from cosine.core.goodput import Offer, Shape, best_offer, fixed_offer
from cosine.core.lengths import Trend, covered_depth
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.plan import Cooperation
from cosine.core.strategy import Length, Strategy

CHALLENGE_PLANS = 4


@dataclass(slots=True)
class Champion:
    """What won the last time that about as many requests drafted together: what pays changes slowly, and looking for
    something better takes time. So only depths near its own are looked at, and every `CHALLENGE_PLANS`th time all of
    it, and of one challenger, in turn."""

    way: tuple[int, int] = (0, 0)
    depth: int = 0
    turn: int = 0

    def among(self, ways: Sequence[tuple[int, int]], depth_max: int) -> list[tuple[tuple[int, int], range]]:
        """The ways to look at, each with its depths; all where the champion is not among them."""
        whole = range(1, depth_max + 1)
        if self.way not in ways:
            return [(way, whole) for way in ways]
        self.turn += 1
        turn, rest = divmod(self.turn, CHALLENGE_PLANS)
        if rest:
            depth = min(self.depth, depth_max)
            return [(self.way, range(max(1, depth - 1), min(depth_max, depth + 1) + 1))]
        return [(way, whole) for way in ways if way in (self.way, ways[turn % len(ways)])]

    def won(self, offer: Offer) -> None:
        """An offer was the best of them."""
        self.way, self.depth = (offer.drafter_count, offer.beam), max(offer.depths, default=0)


class Offers:
    """Offers for the requests of one scheduler."""

    def __init__(self, pace: Pace) -> None:
        self.feedback = Feedback()
        self._pace = pace
        self._trials = speculation.Trials()
        self._trends: dict[tuple[str, int], Trend] = {}
        self._champions: dict[tuple[str, int, int], Champion] = {}

    def make(self, wanting: Sequence[Live], drafter_count: int, verifier_count: int, rows_max: int) -> Offer:
        """An offer for requests of one strategy that draft together."""
        strategy = wanting[0].strategy
        full = replace(_shape(strategy), ahead=self.lookahead(strategy) > 0)
        if strategy.length is Length.GOODPUT:
            rates = [live.hit_rate.value for live in wanting]
            kilotokens = sum(len(live.tokens) for live in wanting) / 1000
            limited = self.feedback.limit(full)
            kind = _preset(strategy), strategy.depth, len(rates).bit_length()
            champion = self._champions.setdefault(kind, Champion())
            offer = best_offer(limited, self._pace, rates, drafter_count, rows_max, kilotokens, champion.among)
            champion.won(offer)
            return self._trials.choose(offer)
        if strategy.length is Length.TREND:
            full = Shape(self._trend(strategy).length, full.drafter_count, full.beam, full.width, full.node_budget)
        elif strategy.length is Length.COVERED:
            pace = self._pace
            step_ms = pace.drafting.pass_ms + pace.drafting.row_ms
            target_count = min(verifier_count, strategy.verifiers)
            depth = covered_depth(pace.verify.predict(1), step_ms, target_count, strategy.depth)
            full = Shape(depth, full.drafter_count, full.beam, full.width, full.node_budget)
        return fixed_offer(full, len(wanting))

    def lookahead(self, strategy: Strategy) -> int:
        """Steps that drafters of a plan go on while the verdict is out. Those of an adaptive strategy do not where they
        share processors, unless it was asked for: they would slow down one another, and the target (0.74 to 1.12 times
        plain decoding was seen with eight clients on two cores)."""
        asked_for = "lookahead" in strategy.demanded or not strategy.adaptive
        return strategy.lookahead if asked_for or self._pace.apart else 0

    def note_verdict(self, live: Live, verify_ms: float, token_count: int) -> None:
        """A verdict on a request's draft, for strategies that learn their length from it."""
        if live.strategy.length is Length.TREND and live.depth:
            self._trend(live.strategy).note(live.depth, verify_ms, token_count)

    def _trend(self, strategy: Strategy) -> Trend:
        """What verdicts on drafts of a preset have taught, whatever knobs differ besides the bound on their length:
        strategies are texts of clients, and could be any number."""
        kind = _preset(strategy), strategy.depth
        if kind not in self._trends:
            self._trends[kind] = Trend(strategy.depth, length=max(1, strategy.depth // 2))
        return self._trends[kind]


def _preset(strategy: Strategy) -> str:
    return strategy.name.partition(":")[0]


def _shape(strategy: Strategy) -> Shape:
    interleaved = strategy.cooperation is Cooperation.FUSED
    return Shape(
        strategy.depth,
        strategy.drafter_count,
        strategy.beam,
        strategy.width,
        strategy.node_budget,
        strategy.fusion_interval if interleaved else 0,
    )
