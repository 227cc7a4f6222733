"""How far to guess: early stop, node budget over a whole batch, and plain decoding where that is faster.

All three follow from one question, asked with the learned time models: does the next bit of work bring more tokens per
millisecond than the round brings without it (goodput, arXiv 2406.14066; node values as in arXiv 2406.16858)?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cosine.core.timing import LineModel
from cosine.core.tree import TokenTree, select, values

VALUE_MIN_FLOOR = 0.02
VALUE_MIN_CEILING = 0.6
TRIAL_ROUNDS = 8
FADE = 0.8
PROBE_FIRST = 8
PROBE_LAST = 128
MARGIN = 0.9


@dataclass(slots=True)
class Pace:
    """Learned times of the mesh around one verifier, in milliseconds."""

    verify: LineModel = field(default_factory=lambda: LineModel(base_ms=8.0, slope_ms=0.3))
    draft: LineModel = field(default_factory=lambda: LineModel(base_ms=1.0, slope_ms=2.0, prior_size=2.0))
    tokens_per_ms: float = 0.0

    def note_round(self, committed_count: int, took_ms: float) -> None:
        """Tokens one session got from one round, and how long the round took."""
        rate = committed_count / max(took_ms, 1e-3)
        self.tokens_per_ms = rate if not self.tokens_per_ms else 0.9 * self.tokens_per_ms + 0.1 * rate


def value_min(pace: Pace, session_count: int, steps_per_exchange: int) -> float:
    """Path value below which one more exchange costs more than it brings, for a plan of `session_count` sessions.

    The exchange's time is shared by the plan's sessions; each of its `steps_per_exchange` tokens may pay it back.
    """
    lost = pace.tokens_per_ms * pace.draft.slope_ms / max(1, steps_per_exchange)
    shared = max(1.0, math.sqrt(session_count))
    return min(VALUE_MIN_CEILING, max(VALUE_MIN_FLOOR, lost / shared))


def spend(trees: Sequence[TokenTree], pace: Pace, spent_ms: float, rows_max: int) -> list[TokenTree]:
    """The nodes worth verifying, over all sessions of a batch at once.

    Nodes are taken by value while each raises expected tokens per millisecond of the round, whose fixed part is the
    `spent_ms` of drafting and a pass over the roots, up to `rows_max` rows. Trees stay closed under parents.
    """
    ranked = sorted(
        ((value, -node, index) for index, tree in enumerate(trees) for node, value in enumerate(values(tree))),
        reverse=True,
    )
    tokens = float(len(trees))
    time_ms = spent_ms + pace.verify.predict(len(trees))
    slope = pace.verify.slope_ms
    keep: list[list[int]] = [[] for _ in trees]
    for value, negative, index in ranked[: max(0, rows_max - len(trees))]:
        if value * time_ms < slope * tokens:
            break
        keep[index].append(-negative)
        tokens += value
        time_ms += slope
    return [select(tree, sorted(nodes)) for tree, nodes in zip(trees, keep, strict=True)]


@dataclass(slots=True)
class Switch:
    """Plain or speculative, for one request: plain where speculation was slower, and now and then a new try."""

    plain_left: int = 0
    patience: int = PROBE_FIRST
    rate: float = 0.0
    seen: int = 0

    def speculate(self) -> bool:
        """Whether the next round drafts."""
        if self.plain_left > 0:
            self.plain_left -= 1
            return False
        return True

    def note(self, committed_count: int, took_ms: float, plain_ms: float) -> None:
        """Outcome of a speculative round, and what one plain token would have taken at the same time."""
        gain = committed_count * plain_ms / max(took_ms, 1e-3)
        self.rate = gain if self.seen == 0 else FADE * self.rate + (1 - FADE) * gain
        self.seen += 1
        if self.seen < TRIAL_ROUNDS:
            return
        if self.rate >= MARGIN:
            self.patience = PROBE_FIRST
            return
        self.plain_left, self.patience = self.patience, min(PROBE_LAST, 2 * self.patience)
        self.seen = TRIAL_ROUNDS - 2
