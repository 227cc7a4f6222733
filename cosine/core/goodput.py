"""How deep, by how many drafters and how wide to draft for the sessions of a plan: what predicted goodput says.

Goodput is expected tokens per millisecond of a round (arXiv 2406.14066). Rates and times come from `Pace`; requests,
peers and plans are unknown here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cosine.core.pace import Pace, exchanges
from cosine.core.timing import Load

VALUE_MIN_FLOOR = 0.02
VALUE_MIN_CEILING = 0.6
VALUE_MIN_SLACK = 0.8  # a drafter's own confidence is not calibrated
DEPTH_SLACK = 3  # confidences, not averages, decide where a path ends
DEPTH_PATIENCE = 3
POLISHED_MAX = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """How much a plan may draft per session. Drafters meet every `fusion_interval` tokens, 0: only at the end.

    `crew_full` and `beam_full` are what the strategy says where this is less (0: it is not), so that hit rates, which
    are those of the full crew and beam, are not taken for the thinner ones'.
    """

    depth: int
    drafter_count: int = 1
    beam: int = 1
    width: int = 1
    node_budget: int = 16
    fusion_interval: int = 0
    crew_full: int = 0
    beam_full: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """How deep to draft for each session of a plan, by how many drafters, how wide.

    `value_min` is the path value below which one more step costs more tokens elsewhere than it may bring here.
    `promised` is the tokens predicted for each session, `gain` the goodput of all as multiple of plain decoding's;
    `time_ms` the round's predicted time, `plain_ms` that of a round without drafts. `crew` says how far the crew is
    from all the drafters that the strategy allows (0: all, 1: a single one), `chain` how far the beam is from full.
    """

    depths: tuple[int, ...]
    drafter_count: int
    beam: int
    value_min: float
    promised: tuple[float, ...]
    gain: float
    width: int = 1
    node_budgets: tuple[int, ...] = ()
    time_ms: float = 0.0
    plain_ms: float = 0.0
    crew: float = 0.0
    chain: float = 0.0

    def plain(self) -> Offer:
        """The same sessions without drafts."""
        count = len(self.depths)
        return replace(
            self,
            depths=(0,) * count,
            promised=(1.0,) * count,
            gain=1.0,
            node_budgets=(0,) * count,
            time_ms=self.plain_ms,
        )


def fixed_offer(full: Shape, session_count: int) -> Offer:
    """Everything the strategy allows, for strategies that do not adapt."""
    return Offer(
        (full.depth,) * session_count,
        full.drafter_count,
        full.beam,
        0.0,
        (0.0,) * session_count,
        1.0,
        full.width,
        (full.node_budget,) * session_count,
    )


def best_offer(
    full: Shape,
    pace: Pace,
    hit_rates: Sequence[float],
    drafter_count: int,
    rows_max: int = 0,
    kilotokens: float = 0.0,
    among: Callable[[Sequence[tuple[int, int]]], Sequence[tuple[int, int]]] | None = None,
) -> Offer:
    """The offer of drafting, up to `full`, of the highest predicted goodput, for a plan of one session per hit rate.

    A session whose drafts hit at rate p per token is expected to commit (1 - p^(d+1)) / (1 - p) tokens at depth d
    (arXiv 2211.17192), of which what goes beyond 1 is believed as far as such promises were kept so far.
    `drafter_count` drafters are up, the verifier takes `rows_max` rows at once (0: any number) and reads `kilotokens`
    thousand cached tokens for these sessions. A gain below 1 says that plain decoding is predicted to be faster;
    whether to draft all the same is for `Trials` to say. `among` may name the (drafters, beam) worth looking at.
    """
    plain_ms = pace.verify.predict(len(hit_rates), kilotokens)
    steps_max = len(hit_rates) * full.depth
    if rows_max:
        steps_max = max(0, min(steps_max, int((rows_max - len(hit_rates)) / pace.rows_per_step)))
    best: Bid | None = None
    ways = {(way.shape.drafter_count, way.shape.beam): way for way in _ways(full, pace, hit_rates, drafter_count)}
    for key in list(ways) if among is None else among(list(ways)):
        way = ways[key]
        best = _search(way, plain_ms, steps_max, best)
    if best is None:
        return replace(fixed_offer(replace(full, depth=0), len(hit_rates)), time_ms=plain_ms, plain_ms=plain_ms)
    polished = _polished(best, plain_ms, steps_max)
    if polished.goodput * plain_ms >= len(hit_rates):  # what loses is tried for all sessions alike
        best = polished
    return best.way.offer(best, full, plain_ms)


@dataclass(frozen=True, slots=True)
class Bid:
    """Depths for one way of drafting, the tokens and the time they are predicted to take."""

    way: Way
    depths: tuple[int, ...]
    promised: tuple[float, ...]
    time_ms: float
    goodput: float


@dataclass(frozen=True, slots=True)
class Way:
    """One way of drafting: its shape, what it does to hit rates, and how many drafters it keeps busy. `row_ms` is what
    a step of one session adds to a round, `pass_ms` what a step of all adds beside."""

    shape: Shape
    crew: float
    chain: float
    rates: tuple[float, ...]
    busy: int
    pace: Pace
    row_ms: float
    pass_ms: float

    def depths(self, least: float, cap: int) -> tuple[int, ...]:
        """Per session the largest depth up to `cap` whose last token is believed to come with chance `least`."""
        least = least / self.pace.truth if self.pace.truth > 0.0 else math.inf
        return tuple(_depth_worth(rate, least, cap) for rate in self.rates)

    def bid(self, depths: tuple[int, ...], fixed_ms: float) -> Bid:
        """What depths bring and cost; `fixed_ms` is the verifier's pass over the sessions without drafts."""
        pace, steps = self.pace, sum(depths)
        promised = tuple(map(_expected_tokens, self.rates, depths))
        believed = sum(1.0 + min(depth, pace.truth * (e - 1.0)) for e, depth in zip(promised, depths, strict=True))
        time_ms = fixed_ms + pace.verify.slope_ms * pace.rows_per_step * steps
        time_ms += pace.exposed_ms(pace.drafting_ms(self.load(depths, promised)))
        return Bid(self, depths, promised, time_ms, believed / max(time_ms, 1e-9))

    def load(self, depths: Sequence[int], promised: Sequence[float]) -> Load:
        """What drafters must do while the verifier waits: what a head start leaves of it, on average. The tokens that
        a round commits are rows of the next."""
        shape, pace = self.shape, self.pace
        share, kept = pace.head_share, round(pace.head_depth)
        left = [(1 - share) * depth + share * max(0, depth - kept) for depth in depths]
        own_rows = [shape.beam * rest + e if rest else 0.0 for e, rest in zip(promised, left, strict=True)]
        longest, meetings = _expected_longest(depths, share, kept, shape.fusion_interval)
        jobs = shape.drafter_count * sum(map(bool, left)) or 1
        busy = min(self.busy, jobs)
        passes = min(busy * longest, shape.drafter_count * sum(left))
        rows = shape.drafter_count * sum(own_rows)
        busiest = max(-(-jobs // busy) * rows / jobs, max(own_rows))
        return Load(meetings, longest, busiest, max(0.0, passes - longest), rows - busiest)

    def offer(self, bid: Bid, full: Shape, plain_ms: float) -> Offer:
        """The offer that a bid makes."""
        pace, count = self.pace, len(self.rates)
        row_price = bid.goodput * pace.verify.slope_ms
        least = VALUE_MIN_SLACK * bid.goodput * (self.row_ms + self.pass_ms / count)
        level_nodes = min(float(self.shape.beam * full.width), max(1.0, 1.0 / max(VALUE_MIN_SLACK * row_price, 1e-9)))
        sibling = 2.0 * (1.0 - min(self.rates))  # what is left for all others; calibration errs
        return Offer(
            bid.depths,
            self.shape.drafter_count,
            self.shape.beam,
            min(VALUE_MIN_CEILING, max(VALUE_MIN_FLOOR, least)),
            bid.promised,
            bid.goodput * plain_ms / count,
            full.width if sibling >= row_price else 1,
            tuple(min(full.node_budget, math.ceil(level_nodes * (d + DEPTH_SLACK))) if d else 0 for d in bid.depths),
            bid.time_ms,
            plain_ms,
            self.crew,
            self.chain,
        )


def _ways(full: Shape, pace: Pace, hit_rates: Sequence[float], drafter_count: int) -> Iterator[Way]:
    """All crews of one, two, four ... drafters up to those there are, each with one path and with the full beam."""
    most = min(full.drafter_count, drafter_count)
    if not full.depth or not most or not hit_rates:
        return
    counts = {2**power for power in range(most.bit_length()) if 2**power < most} | {most}
    crew_full, beam_full = full.crew_full or full.drafter_count, full.beam_full or full.beam
    for count in sorted(counts):
        crew = max(0.0, 1.0 - math.log(count) / math.log(crew_full)) if crew_full > 1 else 0.0
        busy = min(drafter_count, count * len(hit_rates))
        for beam in sorted({1, full.beam}):
            chain = max(0.0, 1.0 - math.log(beam) / math.log(beam_full)) if beam_full > 1 else 0.0
            misses = pace.misses(crew, chain)
            rates = tuple(max(0.0, 1.0 - misses * (1.0 - rate)) for rate in hit_rates)
            shape = replace(full, drafter_count=count, beam=beam)
            yield Way(shape, crew, chain, rates, busy, pace, *_step_costs(shape, pace, busy))


def _step_costs(shape: Shape, pace: Pace, busy: int) -> tuple[float, float]:
    """Milliseconds that a step of one session adds to a round, and that a step of all sessions adds beside."""
    rows = shape.drafter_count * shape.beam
    more_meetings = 1.0 / shape.fusion_interval if shape.fusion_interval else 0.0
    once_ms = pace.drafting_ms(Load(1.0))
    row_ms = pace.drafting_ms(Load(1.0, row_count=rows / busy, row_extra=rows - rows / busy)) - once_ms
    pass_ms = pace.drafting_ms(Load(1.0 + more_meetings, pass_count=1.0, pass_extra=busy - 1.0)) - once_ms
    return row_ms + pace.verify.slope_ms * pace.rows_per_step, pass_ms


def _search(way: Way, fixed_ms: float, steps_max: int, best: Bid | None) -> Bid | None:
    """The better of `best` and the best depths of a way.

    How deep the deepest session goes decides passes and exchanges; below that cap each step of a session costs the
    same, and is worth it while its chance pays for its time at the goodput found so far (Dinkelbach's method).
    """
    plain = len(way.rates) / max(fixed_ms, 1e-9)
    own: Bid | None = None
    behind = 0
    for cap in range(1, way.shape.depth + 1):
        goodput = max(plain, best.goodput if best else 0.0, own.goodput if own else 0.0)
        depths = way.depths(goodput * way.row_ms, cap)
        fits = sum(depths) <= steps_max
        found = way.bid(depths if fits else _lowered(depths, steps_max), fixed_ms) if any(depths) else None
        if cap == 1 and len(way.rates) <= steps_max:
            shallow = way.bid((1,) * len(way.rates), fixed_ms)
            found = shallow if found is None or shallow.goodput > found.goodput else found
        behind = behind + 1 if own and (found is None or found.goodput <= own.goodput) else 0
        if found and any(found.depths) and (own is None or found.goodput > own.goodput):
            own = found
        if not fits or behind >= DEPTH_PATIENCE:
            break
    return own if best is None or (own is not None and own.goodput > best.goodput) else best


def _polished(bid: Bid, fixed_ms: float, steps_max: int) -> Bid:
    """A bid after trying, session by session, a step more, a step less and none at all; of many, no session's step
    moves the whole by much."""
    way = bid.way
    for index in range(len(bid.depths) if len(bid.depths) <= POLISHED_MAX else 0):
        depth = bid.depths[index]
        for other in {0, depth - 1, min(depth + 1, way.shape.depth)} - {depth, -1}:
            depths = (*bid.depths[:index], other, *bid.depths[index + 1 :])
            if 0 < sum(depths) <= steps_max:
                bid = max(bid, way.bid(depths, fixed_ms), key=lambda found: found.goodput)
    return bid


def _lowered(depths: Sequence[int], steps_max: int) -> tuple[int, ...]:
    """Depths cut step by step, the largest first, until all together are at most `steps_max`."""
    lowered = list(depths)
    for _ in range(sum(depths) - steps_max):
        lowered[lowered.index(max(lowered))] -= 1
    return tuple(lowered)


def _expected_longest(depths: Sequence[int], share: float, kept: int, interval: int) -> tuple[float, float]:
    """Mean of the most steps that any session still lacks, and of the exchanges that takes, where each session starts
    `kept` deep with probability `share`."""
    longest = max(depths, default=0)
    if share <= 0.0 or kept <= 0:
        return longest, exchanges(longest, interval)
    below, steps, meetings = 0.0, 0.0, 0.0
    for most in range(longest + 1):
        chance = 1.0
        for depth in depths:
            if depth > most:
                chance *= share if depth - kept <= most else 0.0
        steps += most * (chance - below)
        meetings += exchanges(most, interval) * (chance - below)
        below = chance
    return steps, meetings


def _depth_worth(rate: float, least: float, depth_max: int) -> int:
    """The largest depth up to `depth_max` whose last token has a chance of at least `least`."""
    if not 0.0 < rate < 1.0 or least <= 0.0:
        return depth_max if (rate >= 1.0 >= least) or least <= 0.0 else 0
    return max(0, min(depth_max, int(math.log(min(1.0, least)) / math.log(rate))))


def _expected_tokens(rate: float, depth: int) -> float:
    return depth + 1.0 if rate >= 1.0 else (1.0 - rate ** (depth + 1)) / (1.0 - rate)
