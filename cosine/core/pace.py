"""What is learned of the mesh around a verifier: times of its models, what drafting brings, how often drafts are right.

It takes observations and answers predictions; what to do with them is for `goodput` and `speculation` to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cosine.core.processors import Processor, crowded
from cosine.core.timing import DraftLoad, DraftModel, LineModel

TRUTH_FADE = 0.97
TRUTH_MAX = 2.0
MISSES_RATE = 0.01
MISSES_MAX = 3.0
ROWS_FADE = 0.97
ROWS_MAX = 8.0
HEAD_FADE = 0.95
LATE_FADE = 0.97
LATE_HOPE = 0.02
BARE_PRIOR = 0.8
RUN_FADE = 0.95
RUN_MAX = 2.0
HIDDEN_FADE = 0.9
HIT_PRIOR = 0.75
HIT_WEIGHT = 3.0
HIT_FADE = 0.9
REST_FADE = 0.97
SHARED_RATE = 0.02


@dataclass(slots=True)
class Pace:
    """What is learned of the mesh around one verifier: times in milliseconds, and what drafting brings.

    `single_misses` and `chain_misses` say how many times as often one drafter misses as all that the strategy allows,
    and one path as its full beam. `rows_per_step` are nodes verified per step of depth. In a share `head_share` of the
    rounds some tree is left to start from, `head_depth` deep on average: in `bare_share` of those after a verdict on
    nothing, in `tree_share` of those after one on a tree. Where nothing is left and drafters are waited for, a session
    gets the share `late_truth` of what plans promise on average beyond plain decoding's one token. Of the passes that
    plans ask for drafters run `run_share`: the others end early, where no path is worth going on. `hidden_ms` of
    drafting pass while the verifier works for others. `verifiers` and `drafters` are peers by id.
    """

    verify: LineModel = field(default_factory=lambda: LineModel(base_ms=8.0, slope_ms=0.3))
    truth: float = 1.0
    hit_rate: float = HIT_PRIOR
    drafting: DraftModel = field(default_factory=DraftModel)
    single_misses: float = 1.25
    chain_misses: float = 1.1
    rows_per_step: float = 1.25
    head_share: float = 0.0
    head_depth: float = 0.0
    run_share: float = 1.0
    late_truth: float = 1.0
    bare_share: float = BARE_PRIOR
    tree_share: float = 0.5
    hidden_ms: float = 0.0
    verifiers: Mapping[str, Processor] = field(default_factory=dict)
    drafters: Mapping[str, Processor] = field(default_factory=dict)
    _bias: float = 1.0
    _crowded: bool | None = False

    @property
    def apart(self) -> bool:
        """True where drafters may work while the target does, without slowing down it or one another: where all say
        what they compute on by that, else by what has been learned of drafters' times."""
        return self.drafting.apart if self._crowded is None else not self._crowded

    def note_verifiers(self, verifiers: Mapping[str, Processor]) -> None:
        """These are up and no others."""
        self.verifiers = verifiers
        self._note_crowd()

    def note_drafters(self, drafters: Mapping[str, Processor]) -> None:
        """These are up and no others."""
        self.drafters = drafters
        self._note_crowd()

    def _note_crowd(self) -> None:
        """Settled when peers change: every plan and every seat asks for it."""
        self._crowded = crowded((*self.verifiers.values(), *self.drafters.values()))

    def note_promise(self, promised: float, committed_count: int) -> None:
        """A session was promised so many tokens of a round; `truth` is the share of what was promised beyond plain
        decoding's one that is kept. Small promises say little."""
        extra = promised - 1.0
        if extra > 0.0:
            kept = (committed_count - 1) / max(1.0, extra) - self.truth * min(1.0, extra)
            self.truth = max(0.0, min(TRUTH_MAX, self.truth + (1 - TRUTH_FADE) * kept))

    def note_late(self, promised: float, committed_count: int) -> None:
        """A session that drafters were waited for, since its last verdict had left it nothing, in a plan that promised
        its sessions so many tokens on average: rather one of those whose drafts are seldom right."""
        extra = promised - 1.0
        if extra > 0.0:
            kept = (committed_count - 1) / max(1.0, extra) - self.late_truth * min(1.0, extra)
            self.late_truth = max(0.0, min(TRUTH_MAX, self.late_truth + (1 - LATE_FADE) * kept))

    def note_rest(self) -> None:
        """No drafter was waited for. What was learned of waiting fades, so that it is tried again some day."""
        self.late_truth += LATE_HOPE * (1.0 - self.late_truth)

    def note_rows(self, node_count: int, step_count: int) -> None:
        """A batch verified so many nodes of trees that were planned so many steps deep, all together. Where none were
        drafted, or none were worth their rows, nothing is said of those that are."""
        if step_count > 0 and node_count > 0:
            self.rows_per_step += (1 - ROWS_FADE) * (min(ROWS_MAX, node_count / step_count) - self.rows_per_step)

    @property
    def bare_gain(self) -> float:
        """How much likelier a head start is after a verdict on nothing than after one on a tree, in head starts: what
        is gained once is lost again in part, since behind a head start comes a verdict on a tree."""
        likelier = max(0.0, self.bare_share - self.tree_share)
        return likelier / (1.0 + likelier)

    def note_head_start(self, depth_kept: int, bare: bool | None = None) -> None:
        """A session's next tree started from what its last verdict had left: so many tokens deep, 0 for nothing. That
        verdict was on nothing, since no drafter was waited for (`bare`), or not; None where neither tells."""
        if depth_kept > 0:
            weight = 1 - HEAD_FADE if self.head_depth else 1.0
            self.head_depth += weight * (depth_kept - self.head_depth)
        self.head_share += (1 - HEAD_FADE) * ((depth_kept > 0) - self.head_share)
        if bare:
            self.bare_share += (1 - LATE_FADE) * ((depth_kept > 0) - self.bare_share)
        elif bare is not None:
            self.tree_share += (1 - LATE_FADE) * ((depth_kept > 0) - self.tree_share)

    def note_passes(self, expected: float, run: float) -> None:
        """The busiest drafter of a plan was expected to take so many passes if no path ended early, and ran so many."""
        if expected > 0.0:
            self.run_share += (1 - RUN_FADE) * (min(RUN_MAX, run / expected) - self.run_share)

    def note_batch(self, draft_ms: float, idle_ms: float, waiting_ms: float) -> None:
        """A batch went to the verifier: its requests had drafted for `draft_ms` on average and then waited for
        `waiting_ms`, before it the verifier had nothing to do for `idle_ms`. In between it worked for others."""
        hidden_ms = max(0.0, draft_ms + waiting_ms - idle_ms)
        self.hidden_ms += (1 - HIDDEN_FADE) * (hidden_ms - self.hidden_ms)

    def exposed_ms(self, draft_ms: float) -> float:
        """What of so long a drafting the verifier is expected to wait for."""
        return max(0.0, draft_ms - self.hidden_ms)

    def note_misses(self, crew: float, chain: float, missed_count: float, expected_count: float) -> None:
        """Drafts missed so often where so much was expected of that crew and beam: a step of Poisson regression, whose
        constant term takes what expectations are wrong about for all alike."""
        surprise = MISSES_RATE * (missed_count - self._bias * expected_count)
        self._bias = min(MISSES_MAX, max(1.0 / MISSES_MAX, self._bias * math.exp(surprise)))
        self.single_misses = min(MISSES_MAX, max(1.0, self.single_misses * math.exp(crew * surprise)))
        self.chain_misses = min(MISSES_MAX, max(1.0, self.chain_misses * math.exp(chain * surprise)))

    def misses(self, crew: float, chain: float) -> float:
        """How many times as often drafts miss as those of the full crew and beam; see `Offer`."""
        return math.pow(self.single_misses, crew) * math.pow(self.chain_misses, chain)

    def drafting_ms(self, load: DraftLoad) -> float:
        """How long drafting takes; nothing where no exchange is needed."""
        return self.drafting.predict(load) if load.exchange_count else 0.0


@dataclass(slots=True)
class HitRate:
    """How often a request's next drafted token was right, given that the one before was.

    What was seen fades with every round, slowly where nothing was drafted, towards what requests achieve in general,
    so that a request that has stopped drafting tries again.
    """

    expected: float = HIT_PRIOR
    hits: float = 0.0
    tries: float = 0.0

    @property
    def value(self) -> float:
        return (self.hits + self.expected * HIT_WEIGHT) / (self.tries + HIT_WEIGHT)

    def note(self, accepted_count: int, depth: int, misses: float = 1.0) -> None:
        """A verdict took `accepted_count` tokens of a tree `depth` deep (0: it had none): so many hits, and a miss
        unless all. Drafts that miss `misses` times as often as the fullest say so much less about those."""
        fade = HIT_FADE if depth else REST_FADE
        missed = min(depth, accepted_count + 1) - accepted_count
        self.hits = fade * self.hits + accepted_count + missed * (1.0 - 1.0 / misses)
        self.tries = fade * self.tries + accepted_count + missed


def draft_load(sessions: Iterable[tuple[Sequence[str], int, int]], fusion_interval: int = 0) -> DraftLoad:
    """The load of a plan whose sessions are each (drafters, steps, rows that each of these drafters runs for it)."""
    passes: dict[str, int] = {}
    rows: dict[str, int] = {}
    for drafters, step_count, row_count in sessions:
        for name in drafters if step_count else ():
            passes[name] = max(step_count, passes.get(name, 0))
            rows[name] = rows.get(name, 0) + row_count
    longest, busiest = max(passes.values(), default=0), max(rows.values(), default=0)
    return DraftLoad(
        exchanges(longest, fusion_interval),
        longest,
        busiest,
        sum(passes.values()) - longest,
        sum(rows.values()) - busiest,
    )


def exchanges(longest: int, fusion_interval: int) -> int:
    return -(-longest // fusion_interval) if fusion_interval else min(1, longest)
