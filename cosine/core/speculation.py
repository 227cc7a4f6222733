"""How far to guess: early stop, node budget over a whole batch, and plain decoding where that is faster.

All three follow from one question, asked with the learned time models: does the next bit of work bring more tokens per
millisecond than the round brings without it (goodput, arXiv 2406.14066; node values as in arXiv 2406.16858)?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cosine.core.timing import LineModel, RateModel
from cosine.core.tree import TokenTree, select, values

VALUE_MIN_FLOOR = 0.02
VALUE_MIN_CEILING = 0.6
VALUE_MIN_SLACK = 0.8  # a drafter's own confidence is not calibrated
DEPTH_SLACK = 3  # confidences, not averages, decide where a path ends
PLAIN_ROUNDS = 12
TRIAL_ROUNDS = 4
TRUTH_FADE = 0.97
TRUTH_MAX = 2.0
PASS_ROWS = 5.0
SINGLE_MISSES = 1.25
CHAIN_MISSES = 1.1
ROWS_PER_STEP = 1.25
GOODPUT_ITERATIONS = 3
HIT_PRIOR = 0.75
HIT_WEIGHT = 3.0
HIT_FADE = 0.9
SHARED_RATE = 0.02


@dataclass(slots=True)
class Pace:
    """Learned times of the mesh around one verifier, in milliseconds."""

    verify: LineModel = field(default_factory=lambda: LineModel(base_ms=8.0, slope_ms=0.3))
    draft: RateModel = field(default_factory=lambda: RateModel(base_ms=2.0, rate_ms=0.03))
    truth: float = 1.0
    hit_rate: float = HIT_PRIOR

    def note_promise(self, promised: float, committed_count: int) -> None:
        """A session was promised so many tokens of a round; `truth` is the share of promises that is kept."""
        self.truth += (1 - TRUTH_FADE) * (min(TRUTH_MAX, committed_count / promised) - self.truth)


@dataclass(frozen=True, slots=True)
class Shape:
    """How much a plan may draft per session."""

    depth: int
    drafter_count: int = 1
    beam: int = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """How deep to draft for each session of a plan, by how many drafters, how wide.

    `value_min` is the path value below which one more step costs more tokens elsewhere than it may bring here.
    `promised` is the tokens predicted for each session, `gain` the goodput of all as multiple of plain decoding's.
    """

    depths: tuple[int, ...]
    drafter_count: int
    beam: int
    value_min: float
    promised: tuple[float, ...]
    gain: float


def draft_work(row_count: float, pass_count: float) -> float:
    """Size of drafting, in rows: a drafter's pass costs about as much as `PASS_ROWS` rows on top of its own."""
    return row_count + PASS_ROWS * pass_count


def fixed_offer(full: Shape, session_count: int) -> Offer:
    """Everything the strategy allows, for strategies that do not adapt."""
    return Offer((full.depth,) * session_count, full.drafter_count, full.beam, 0.0, (0.0,) * session_count, 1.0)


def best_offer(full: Shape, pace: Pace, hit_rates: Sequence[float], drafter_count: int) -> Offer:
    """The offer, up to `full`, of the highest predicted goodput for a plan of one session per hit rate.

    A session whose drafts hit at rate p per token is expected to commit (1 - p^(d+1)) / (1 - p) tokens at depth d
    (arXiv 2211.17192); one drafter misses more often than several, a chain more often than a beam.
    `drafter_count` drafters are up. The gain is what remains of the prediction after its usual error.
    """
    offers = []
    for count in sorted({1, full.drafter_count}):
        for beam in sorted({1, full.beam}):
            more = (SINGLE_MISSES if count < full.drafter_count else 1.0) * (CHAIN_MISSES if beam < full.beam else 1.0)
            rates = [max(0.0, 1.0 - more * (1.0 - rate)) for rate in hit_rates]
            busy = min(drafter_count, count * len(rates))
            offers.append(_offer(Shape(full.depth, count, beam), pace, rates, busy))
    return max(offers, key=lambda offer: offer.gain)


def _offer(shape: Shape, pace: Pace, rates: Sequence[float], busy: int) -> Offer:
    """Depths for one way of drafting: a step deeper as long as it brings more tokens than its time does elsewhere."""
    count = len(rates)
    plain = goodput = count / pace.verify.predict(count)
    step_work = draft_work(shape.drafter_count * shape.beam, busy / count)
    step_ms = pace.verify.slope_ms * ROWS_PER_STEP + pace.draft.rate_ms * step_work
    depths: list[int] = []
    tokens: list[float] = []
    time_ms = 1.0
    for _ in range(GOODPUT_ITERATIONS):
        depths = [_depth_worth(rate, goodput * step_ms, shape.depth) for rate in rates]
        tokens = [_expected_tokens(rate, depth) for rate, depth in zip(rates, depths, strict=True)]
        pass_count = min(busy * max(depths), shape.drafter_count * sum(depths))
        work = draft_work(shape.drafter_count * shape.beam * sum(depths), pass_count)
        drafting_ms = pace.draft.predict(work) if work else 0.0
        time_ms = drafting_ms + pace.verify.predict(count + ROWS_PER_STEP * sum(depths))
        goodput = sum(tokens) / time_ms
    least = min(VALUE_MIN_CEILING, max(VALUE_MIN_FLOOR, VALUE_MIN_SLACK * goodput * step_ms))
    return Offer(tuple(depths), shape.drafter_count, shape.beam, least, tuple(tokens), pace.truth * goodput / plain)


def _depth_worth(rate: float, least: float, depth_max: int) -> int:
    """The largest depth up to `depth_max` whose last token has a chance of at least `least`."""
    if not 0.0 < rate < 1.0 or least <= 0.0:
        return depth_max if rate >= 1.0 or least <= 0.0 else 0
    return max(0, min(depth_max, int(math.log(min(1.0, least)) / math.log(rate))))


def _expected_tokens(rate: float, depth: int) -> float:
    return depth + 1.0 if rate >= 1.0 else (1.0 - rate ** (depth + 1)) / (1.0 - rate)


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
class HitRate:
    """How often a request's next drafted token was right, given that the one before was.

    What was seen fades with every round, drafted or not, towards what requests achieve in general, so that a request
    that has stopped drafting tries again.
    """

    expected: float = HIT_PRIOR
    hits: float = 0.0
    tries: float = 0.0

    @property
    def value(self) -> float:
        return (self.hits + self.expected * HIT_WEIGHT) / (self.tries + HIT_WEIGHT)

    def note(self, accepted_count: int, depth: int) -> None:
        """A verdict took `accepted_count` tokens of a tree `depth` deep (0: it had none): so many hits, and a miss
        unless all."""
        self.hits = HIT_FADE * self.hits + accepted_count
        self.tries = HIT_FADE * self.tries + min(depth, accepted_count + 1)


@dataclass(slots=True)
class Trials:
    """Whether to take an offer. One that is predicted to lose is taken all the same for a few rounds now and then (and
    at the start), since only rounds that draft teach what drafting brings."""

    round_count: int = 0

    def allow(self, gain: float) -> bool:
        """Whether to draft, given the predicted gain over plain decoding."""
        if gain >= 1.0:
            self.round_count = TRIAL_ROUNDS
            return True
        self.round_count = (self.round_count + 1) % (TRIAL_ROUNDS + PLAIN_ROUNDS)
        return self.round_count < TRIAL_ROUNDS
