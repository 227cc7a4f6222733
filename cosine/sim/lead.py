"""How far `cosine` is ahead of the best of the others under a load, or behind it, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LEADER = "cosine"


class Score(NamedTuple):
    """What one strategy reached under a load."""

    token_ms: float
    tokens_per_s: float


def lead(scores: Mapping[str, Score]) -> str:
    """The sentence; "" where `cosine` is not among the strategies, or only it with other knobs is."""
    others = {name: score for name, score in scores.items() if name.partition(":")[0] != LEADER}
    if LEADER not in scores or not others:
        return ""
    mine = scores[LEADER]
    quickest = min(others, key=lambda name: others[name].token_ms)
    busiest = max(others, key=lambda name: others[name].tokens_per_s)
    time = _change(mine.token_ms / others[quickest].token_ms, "less")
    rate = _change(mine.tokens_per_s / others[busiest].tokens_per_s, "fewer")
    return f"{LEADER} takes {time} time per token than {quickest} and serves {rate} tokens per second than {busiest}"


def _change(ratio: float, smaller: str) -> str:
    return f"{abs(100 * (ratio - 1)):.0f} % {smaller if ratio < 1 else 'more'}"
