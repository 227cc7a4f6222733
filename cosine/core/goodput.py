"""How deep, by how many drafters and how wide to draft for the sessions of a plan: what predicted goodput says.

Goodput is expected tokens per millisecond of a round (arXiv 2406.14066). Rates and times come from `Pace`; requests,
peers and plans are unknown here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import NamedTuple

from cosine.core.pace import Pace, exchanges

VALUE_MIN_FLOOR = 0.02
VALUE_MIN_CEILING = 0.9
VALUE_MIN_SLACK = 0.8  # a drafter's own confidence is not calibrated
REST = 2.0  # a path value that none has
DEPTH_SLACK = 3  # confidences, not averages, decide where a path ends
DEPTH_PATIENCE = 3
POLISHED_MAX = 2


Among = Callable[[Sequence[tuple[int, int]], int], Sequence[tuple[tuple[int, int], range]]]
"""Of the (drafters, beam) that could be and the largest depth, what to look at: each with the depths to try."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much a plan may draft per session. Drafters meet every `fusion_interval` tokens, 0: only at the end.

    `crew_full` and `beam_full` are what the strategy says where this is less (0: it is not), so that hit rates, which
    are those of the full crew and beam, are not taken for the thinner ones'. `ahead` says that drafters go on while a
    verdict is out, so that a round may do without waiting for them.
    """

    depth: int
    drafter_count: int = 1
    beam: int = 1
    width: int = 1
    node_budget: int = 16
    fusion_interval: int = 0
    crew_full: int = 0
    beam_full: int = 0
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """How deep to draft for each session of a plan, by how many drafters, how wide.

    `value_min` is the path value below which one more step costs more tokens elsewhere than it may bring here: a pass
    is paid by the sessions that lack it, and it may cost more than they can bring (`value_min` above 1: the plan
    `rests`). These are verified with what they have, and are drafted for while they are.
    `promised` is the tokens predicted for each session, `gain` the goodput of all as multiple of plain decoding's;
    `time_ms` the round's predicted time, `plain_ms` that of a round without drafts. `crew` says how far the crew is
    from all the drafters that the strategy allows (0: all, 1: a single one), `chain` how far the beam is from full.
    `pass_count` is how many forward passes the busiest drafter would take if no path were given up early.
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
    pass_count: float = 0.0

    @property
    def rests(self) -> bool:
        """True where drafters are waited for by nobody."""
        return self.value_min > 1.0

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
    among: Among | None = None,
) -> Offer:
    """The offer of drafting, up to `full`, of the highest predicted goodput, for a plan of one session per hit rate.

    A session whose drafts hit at rate p per token is expected to commit (1 - p^(d+1)) / (1 - p) tokens at depth d
    (arXiv 2211.17192), of which what goes beyond 1 is believed as far as such promises were kept so far.
    `drafter_count` drafters are up, the verifier takes `rows_max` rows at once (0: any number) and reads `kilotokens`
    thousand cached tokens for these sessions. A gain below 1 says that plain decoding is predicted to be faster;
    whether to draft all the same is for `Trials` to say. `among` may choose what is worth looking at.
    """
    plain_ms = pace.verify.predict(len(hit_rates), kilotokens)
    steps_max = len(hit_rates) * full.depth
    if rows_max:
        steps_max = max(0, min(steps_max, int((rows_max - len(hit_rates)) / pace.rows_per_step)))
    best: Bid | None = None
    keys = _keys(full, drafter_count) if hit_rates else []
    whole = range(1, full.depth + 1)
    for (count, beam), caps in [(key, whole) for key in keys] if among is None else among(keys, full.depth):
        way = _way(full, pace, hit_rates, drafter_count, count, beam)
        best = _search(way, caps, plain_ms, steps_max, best)
    if best is None:
        return replace(fixed_offer(replace(full, depth=0), len(hit_rates)), time_ms=plain_ms, plain_ms=plain_ms)
    polished = _polished(best, plain_ms, steps_max)
    if polished.goodput * plain_ms >= len(hit_rates):  # what loses is tried for all sessions alike
        best = polished
    return best.way.offer(best, full, plain_ms)


class Bid(NamedTuple):
    """Depths for one way of drafting, the tokens and the time they are predicted to take. (A tuple: there are dozens
    per plan.) Waiting for drafters is expected to bring `brought` tokens, and to cost the round `lost`."""

    way: Way
    depths: tuple[int, ...]
    promised: tuple[float, ...]
    time_ms: float
    goodput: float
    pass_count: float
    brought: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way of drafting: its shape, what it does to hit rates, and how many drafters it keeps busy. `row_ms` is what
    a step of one session adds to a round, `pass_ms` what a step of all adds beside. Per session there is the number of
    steps at which a token's chance has fallen to 1/e, and what each depth is expected to commit. `prices` are those of
    a `Load`."""

    shape: Shape
    crew: float
    chain: float
    rates: tuple[float, ...]
    busy: int
    pace: Pace
    row_ms: float
    pass_ms: float
    reaches: tuple[float, ...]
    tokens: tuple[tuple[float, ...], ...]
    prices: tuple[float, ...]

    def depths(self, least: float, cap: int) -> tuple[int, ...]:
        """Per session the largest depth up to `cap` whose last token is believed to come with chance `least`."""
        least = least / self.pace.truth if self.pace.truth > 0.0 else math.inf
        if least > 1.0:
            return (0,) * len(self.rates)
        if least <= 0.0:
            return (cap,) * len(self.rates)
        steps = -math.log(least)
        return tuple([int(min(cap, steps * reach)) for reach in self.reaches])

    def bid(self, depths: tuple[int, ...], fixed_ms: float) -> Bid:
        """What depths bring and cost; `fixed_ms` is the verifier's pass over the sessions without drafts.

        A head start leaves drafters so much less to do, on average, and paths that are given up early do too. The
        tokens that a round commits are rows of the next. Waiting brings what sessions without a head start commit of
        their drafts, less what their better chance of one in the next round would be worth.
        """
        pace, shape, truth = self.pace, self.shape, self.pace.truth
        share, kept, run, beam = pace.head_share, round(pace.head_depth), pace.run_share, shape.beam
        late, row_ms = pace.late_truth - truth * pace.bare_gain, pace.verify.slope_ms * pace.rows_per_step
        promised: list[float] = []
        believed, count, steps, rows, most = float(len(depths)), 0, 0.0, 0.0, 0.0
        brought, late_steps, wait_ms = 0.0, 0.0, 0.0
        for tokens, depth in zip(self.tokens, depths, strict=True):
            expected = tokens[depth]
            promised.append(expected)
            further = truth * (expected - 1.0)
            believed += further if further < depth else depth
            head = depth if depth < kept else kept
            left = depth - share * head
            if left > 0.0:
                brought += (1.0 - share) * late * (expected - 1.0) + share * truth * (expected - tokens[head])
                late_steps += (1.0 - share) * depth
                own = beam * run * left + expected
                count, steps, rows, most = count + 1, steps + left, rows + own, own if own > most else most
        longest, meetings = _expected_longest(depths, share, kept, shape.fusion_interval)
        time_ms = fixed_ms + row_ms * sum(depths)
        if meetings:
            jobs = shape.drafter_count * count or 1
            busy = min(self.busy, jobs)
            extra = max(0.0, min(busy * longest, shape.drafter_count * steps) - longest)
            rows *= shape.drafter_count
            busiest = max(-(-jobs // busy) * rows / jobs, most)
            sizes = (meetings, run * longest, busiest, run * extra, rows - busiest)
            wait_ms = pace.exposed_ms(sum(map(mul, self.prices, sizes)))
            time_ms += wait_ms
        goodput = believed / max(time_ms, 1e-9)
        lost = goodput * (wait_ms + row_ms * late_steps)
        return Bid(self, depths, tuple(promised), time_ms, goodput, longest, brought, lost)

    def offer(self, bid: Bid, full: Shape, plain_ms: float) -> Offer:
        """The offer that a bid makes."""
        pace, count = self.pace, len(self.rates)
        row_price = bid.goodput * pace.verify.slope_ms
        all_ms = max(self.row_ms + self.pass_ms / count, 1e-9)
        least = min(VALUE_MIN_CEILING, max(VALUE_MIN_FLOOR, VALUE_MIN_SLACK * bid.goodput * all_ms))
        crew, thinness = self.shape.drafter_count, self.crew
        if bid.goodput * plain_ms >= count:  # else it is a trial
            lacking = max(1.0, count * (1.0 - pace.head_share))
            least *= (self.row_ms + self.pass_ms / lacking) / all_ms
            if full.ahead and bid.lost > bid.brought:  # whom nobody waits for may be as many as the strategy allows
                least, crew, thinness = max(least, REST), full.crew_full or full.drafter_count, 0.0
        level_nodes = min(float(self.shape.beam * full.width), max(1.0, 1.0 / max(VALUE_MIN_SLACK * row_price, 1e-9)))
        sibling = 2.0 * (1.0 - min(self.rates))  # what is left for all others; calibration errs
        return Offer(
            bid.depths,
            crew,
            self.shape.beam,
            least,
            bid.promised,
            bid.goodput * plain_ms / count,
            full.width if sibling >= row_price else 1,
            tuple(min(full.node_budget, math.ceil(level_nodes * (d + DEPTH_SLACK))) if d else 0 for d in bid.depths),
            bid.time_ms,
            plain_ms,
            thinness,
            self.chain,
            bid.pass_count,
        )


def _keys(full: Shape, drafter_count: int) -> list[tuple[int, int]]:
    """Crews of one, two, four ... drafters up to those there are, each with one path and with the full beam."""
    most = min(full.drafter_count, drafter_count)
    if not full.depth or not most:
        return []
    counts = {2**power for power in range(most.bit_length()) if 2**power < most} | {most}
    return [(count, beam) for count in sorted(counts) for beam in sorted({1, full.beam})]


def _way(full: Shape, pace: Pace, hit_rates: Sequence[float], drafter_count: int, count: int, beam: int) -> Way:
    crew = _thinness(count, full.crew_full or full.drafter_count)
    chain = _thinness(beam, full.beam_full or full.beam)
    misses = pace.misses(crew, chain)
    rates = tuple([max(0.0, 1.0 - misses * (1.0 - rate)) for rate in hit_rates])
    shape = replace(full, drafter_count=count, beam=beam)
    busy = min(drafter_count, count * len(hit_rates))
    reaches, tokens = tuple(map(_reach, rates)), tuple([_expected_tokens(rate, full.depth) for rate in rates])
    costs, prices = _step_costs(shape, pace, busy), pace.drafting.prices
    return Way(shape, crew, chain, rates, busy, pace, *costs, reaches, tokens, prices)


def _thinness(count: int, full: int) -> float:
    """How far so many are from all: 0 for all, 1 for a single one, alike for each halving."""
    return max(0.0, 1.0 - math.log(count) / math.log(full)) if full > 1 else 0.0


def _step_costs(shape: Shape, pace: Pace, busy: int) -> tuple[float, float]:
    """Milliseconds that a step of one session adds to a round, and that a step of all sessions adds beside."""
    exchange_ms, own_pass_ms, own_row_ms, pass_extra_ms, row_extra_ms = pace.drafting.prices
    rows = shape.drafter_count * shape.beam
    row_ms = own_row_ms * rows / busy + row_extra_ms * (rows - rows / busy)
    pass_ms = own_pass_ms + pass_extra_ms * (busy - 1)
    if shape.fusion_interval:
        pass_ms += exchange_ms / shape.fusion_interval
    return row_ms + pace.verify.slope_ms * pace.rows_per_step, pass_ms


def _search(way: Way, caps: range, fixed_ms: float, steps_max: int, best: Bid | None) -> Bid | None:
    """The better of `best` and the best depths of a way, the deepest session's among `caps`.

    How deep the deepest session goes decides passes and exchanges; below that cap each step of a session costs the
    same, and is worth it while its chance pays for its time at the goodput found so far (Dinkelbach's method).
    """
    plain = len(way.rates) / max(fixed_ms, 1e-9)
    own: Bid | None = None
    behind = 0
    before: tuple[int, ...] = ()
    for cap in caps:
        goodput = max(plain, best.goodput if best else 0.0, own.goodput if own else 0.0)
        depths = way.depths(goodput * way.row_ms, cap)
        fits = sum(depths) <= steps_max
        if depths == before:
            break  # no session would go deeper
        before = depths
        found = way.bid(depths if fits else _lowered(depths, steps_max), fixed_ms) if any(depths) else None
        if cap == caps[0] and len(way.rates) <= steps_max and not all(depths):
            shallow = way.bid((1,) * len(way.rates), fixed_ms)
            found = shallow if found is None or shallow.goodput > found.goodput else found
        behind = behind + 1 if own and (found is None or found.goodput <= own.goodput) else 0
        if found and any(found.depths) and (own is None or found.goodput > own.goodput):
            own = found
        if not fits or behind >= DEPTH_PATIENCE:
            break
    return own if best is None or (own is not None and own.goodput > best.goodput) else best


def _polished(bid: Bid, fixed_ms: float, steps_max: int) -> Bid:
    """A bid after trying, session by session, a step less and none at all, else a step more; of many, no session's
    step moves the whole by much."""
    way, limit = bid.way, bid.way.shape.depth
    for index in range(len(bid.depths) if len(bid.depths) <= POLISHED_MAX else 0):
        depth, before = bid.depths[index], bid.goodput
        for other in (*sorted({depth - 1, 0} - {depth, -1}, reverse=True), min(depth + 1, limit)):
            depths = (*bid.depths[:index], other, *bid.depths[index + 1 :])
            if other != depth and bid.goodput == before and 0 < sum(depths) <= steps_max:
                found = way.bid(depths, fixed_ms)
                bid = found if found.goodput > bid.goodput else bid
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
    for most in range(max(0, longest - kept), longest + 1):
        chance = share ** sum([depth > most for depth in depths])
        steps += most * (chance - below)
        meetings += exchanges(most, interval) * (chance - below)
        below = chance
    return steps, meetings


def _reach(rate: float) -> float:
    """Steps after which the chance of a path with this hit rate has fallen to 1/e."""
    return -1.0 / math.log(rate) if 0.0 < rate < 1.0 else (math.inf if rate >= 1.0 else 0.0)


def _expected_tokens(rate: float, depth_max: int) -> tuple[float, ...]:
    """Tokens committed at each depth from 0: 1 + rate + rate^2 + ..."""
    return tuple(itertools.accumulate([rate**depth for depth in range(depth_max + 1)]))
