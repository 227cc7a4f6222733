"""A verifier as the scheduler sees it: who sits there, who waits for its next batch, what it is working on."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

from cosine.core import events as ev
from cosine.core import speculation
from cosine.core.batching import WEIGHT, Candidate, Caps, LineTimes, choose
from cosine.core.config import SchedulerConfig
from cosine.core.decomposition import decompose
from cosine.core.live import Live, Phase
from cosine.core.speculation import Cut, Pace
from cosine.core.strategy import Batching
from cosine.core.stream import Stretch
from cosine.core.timing import LineModel
from cosine.core.tree import TokenTree, prune
from cosine.core.turns import turn_count

ALL_GO = WEIGHT / (1 - WEIGHT)  # below this leaving a request out saves less than it costs the next pass
ONE_PASS = 1.0  # below this no division into two passes saves the second one's base
LOOKED_AT_MIN = 256  # requests of which a batch is chosen, and more as long as they do not fill so many passes
PASSES_LOOKED_AT = 2
BATCHES_MAX = 2  # one that a verifier works on, one that it goes on with at once


@dataclass(slots=True, eq=False)
class Batch:
    """What a verifier was sent: requests with their trees; of streamed requests the stretch (None: part of the
    context). The rest is for learning: `drafted` are those that came with drafts, after `draft_ms` on average and then
    `waiting_ms`; before, while they drafted, the verifier had nothing to do for `idle_ms`."""

    batch_id: int
    peer_id: str
    sent_at: float
    members: dict[str, Live] = field(default_factory=dict)
    trees: dict[str, TokenTree] = field(default_factory=dict)
    stretches: dict[str, Stretch | None] = field(default_factory=dict)
    items: list[ev.BatchItem] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    cancelled: bool = False
    drafted: list[Live] = field(default_factory=list)
    kilotokens: float = 0.0
    draft_ms: float = 0.0
    idle_ms: float = 0.0
    waiting_ms: float = 0.0
    step_count: int = 0
    node_count: int = 0

    @property
    def row_count(self) -> int:
        return sum(len(item.token_ids) + len(item.tree) for item in self.items)

    @property
    def token_count(self) -> int:
        """Tokens of context that the target reads for it."""
        return sum(len(live.tokens) for live in self.members.values())

    def has_given_up(self, live: Live) -> bool:
        """True where a member has no use for what is asked for it: its stretch was refuted, or is to be sent again."""
        stretch = self.stretches.get(live.session_id)
        return stretch is not None and live.stream is not None and stretch not in live.stream.stretches


class Queue(NamedTuple):
    """Who may go into a verifier's next batch: requests that take rounds, and streamed ones."""

    rounds: list[Live]
    streamed: list[Live]


@dataclass(slots=True, eq=False)
class Seat:
    """One verifier, which `sharing_count` schedulers use. `verify` is what its own passes take: batches for it are put
    together by that. `sessions` are all that sit here, in the order they sat down, `ready` those that wait, `batches`
    what it has been sent and not answered, oldest first. `free_at` is when it answered last. Requests take `turns`
    turns, see `cosine.core.turns`."""

    facts: ev.VerifierFacts
    verify: LineModel
    sessions: dict[str, Live] = field(default_factory=dict)
    ready: dict[str, Live] = field(default_factory=dict)
    batches: OrderedDict[int, Batch] = field(default_factory=OrderedDict)
    free_at: float = 0.0
    turn: int = 0
    turns: int = 1
    sharing_count: int = 1

    @property
    def has_room(self) -> bool:
        return len(self.sessions) < self.share

    @property
    def share(self) -> int:
        """How many sessions may be in the verifier's cache: its room is divided evenly."""
        return max(1, self.facts.sessions_max // self.sharing_count)

    @property
    def queue(self) -> Queue:
        """Who may go into a batch now: at an idle verifier all that wait, behind a busy one's batch stretches, while
        all are one request's. Those of several go together when the pass is over: behind one another each would get
        every second pass."""
        if self.batches and (len(self.sessions) > 1 or len(self.batches) >= BATCHES_MAX):
            return Queue([], [])
        waiting = self._waiting
        streamed = [live for live in waiting if live.stream is not None]
        if self.batches:
            return Queue([], streamed)
        return Queue([live for live in waiting if live.stream is None] if streamed else waiting, streamed)

    @property
    def _waiting(self) -> list[Live]:
        """Where the share has become smaller than what sits here, the last to come wait until others have left: the
        cache must do for all."""
        if len(self.sessions) <= self.share:
            return list(self.ready.values())
        late = set(list(self.sessions)[self.share :])
        return [live for session_id, live in self.ready.items() if session_id not in late]

    @property
    def peer_id(self) -> str:
        return self.facts.peer_id

    def take_place(self, live: Live) -> None:
        """A request sits down."""
        self.sessions[live.session_id] = live
        live.verifier, live.turn = self.peer_id, self.turn
        self.turn += 1

    def wait(self, live: Live, now: float, prefill_chunk: int) -> None:
        """A request that takes rounds waits for the next batch; what it will ask of that is settled."""
        live.phase, live.ready_at = Phase.READY, now
        live.rows = _rows(live, prefill_chunk)
        live.worth = max(1.0, live.promised) if live.started else float(live.rows)
        self.ready[live.session_id] = live

    def take_turns(self, queue: Queue) -> None:
        """Settles how many turns those that wait should take."""
        waiting = [live for lives in queue for live in lives if live.strategy.groups > 1]
        self.turns = 1
        if waiting:
            rows = 1.0 + sum(len(live.tree) for live in waiting) / len(waiting)
            draft_ms = max(live.draft_ms for live in waiting)
            turns_max = min(live.strategy.groups for live in waiting)
            self.turns = turn_count(len(self.sessions), turns_max, self.verify, rows, draft_ms)

    def together(self, live: Live, other: Live) -> bool:
        """True where two requests belong in one batch."""
        if live.strategy.groups == 1 and other.strategy.groups == 1:
            return True
        return live.turn % self.turns == other.turn % self.turns

    def compose(self, batch_id: int, queue: Queue, bounds: SchedulerConfig, pace: Pace, now: float) -> Batch | None:
        """Takes who waits, in order and within bounds, into a new batch; None where there is nothing to send. `pace` is
        the mesh's, in which this verifier's own passes take the place of those of all."""
        batch, pace = Batch(batch_id, self.peer_id, now), replace(pace, verify=self.verify)
        rounds_first = _rounds_press(queue, bounds)
        if rounds_first:
            self._take_rounds(batch, queue.rounds, bounds, pace)
        self._take_stretches(batch, queue.streamed, bounds)
        if not rounds_first:
            self._take_rounds(batch, queue.rounds, bounds, pace)
        if not batch.members:
            return None
        self._measure(batch, now)
        self.batches[batch_id] = batch
        return batch

    def _measure(self, batch: Batch, now: float) -> None:
        members = batch.members.values()
        batch.kilotokens = batch.token_count / 1000
        batch.drafted = [live for live in members if live.draft_ms and live.strategy.adaptive]
        if batch.drafted:
            count = len(batch.drafted)
            batch.idle_ms = self._idle_ms(batch.drafted, now)
            batch.draft_ms = sum(live.draft_ms for live in batch.drafted) / count
            batch.waiting_ms = sum(now - live.ready_at for live in batch.drafted) * 1000 / count
            batch.step_count = sum(live.depth for live in batch.drafted)
            batch.node_count = sum(len(batch.trees[live.session_id]) for live in batch.drafted)

    def _idle_ms(self, drafted: Sequence[Live], now: float) -> float:
        """How long the verifier has had nothing to do while it could have had one of these, had drafting been shorter.
        Time before they began to draft, or to look for a seat, does not count: nobody was there."""
        if not self.free_at or self.batches:
            return 0.0
        begun = min(max(live.round_start, live.since) for live in drafted)
        return (now - max(self.free_at, begun)) * 1000

    def end(self, batch_id: int, now: float) -> tuple[Batch, float]:
        """A batch has been answered: it, and the seconds it took, waiting behind others left out."""
        batch = self.batches.pop(batch_id)
        took_s = now - max(batch.sent_at, self.free_at)
        self.free_at = now
        return batch, took_s

    def leave(self, session_id: str) -> list[ev.CancelBatch]:
        """A session gives its place up; what nobody waits for without it."""
        self.ready.pop(session_id, None)
        self.sessions.pop(session_id, None)
        return self.take_back()

    def take_back(self) -> list[ev.CancelBatch]:
        """Batches of which nobody waits for anything any more, each once: whose requests have left, or have given up
        what was asked for them. One that has been answered in part is as good as answered."""
        worthless = [
            batch
            for batch in self.batches.values()
            if not (batch.cancelled or batch.answered)
            and all(name not in self.sessions or batch.has_given_up(live) for name, live in batch.members.items())
        ]
        for batch in worthless:
            batch.cancelled = True
        return [ev.CancelBatch(self.peer_id, batch.batch_id) for batch in worthless]

    def _take_stretches(self, batch: Batch, streamed: list[Live], bounds: SchedulerConfig) -> None:
        rows, tokens, full = batch.row_count, batch.token_count, False
        for live in _by_urgency(streamed, bounds):
            assert live.stream is not None
            session_id = live.session_id
            if not live.stream.may_send(self.peer_id, len(live.tokens)):
                del self.ready[session_id]
                continue
            need = live.stretch_need(self.peer_id, bounds.prefill_chunk)
            over = rows + need >= bounds.batch_rows_max or tokens + len(live.tokens) > bounds.batch_tokens_max
            full = full or bool(batch.members and over)
            if full:
                live.passed_over += 1
                continue
            del self.ready[session_id]
            live.passed_over = 0
            count_max = min(self.facts.tree_nodes_max, max(0, bounds.batch_rows_max - rows - need))
            item, stretch = live.stretch_item(self.peer_id, bounds.prefill_chunk, count_max)
            batch.members[session_id] = live
            batch.stretches[session_id] = stretch
            batch.items.append(item)
            if stretch is not None:
                stretch.batch_id = batch.batch_id
            rows += len(item.token_ids) + len(item.tree)
            tokens += len(live.tokens)

    def _take_rounds(self, batch: Batch, waiting: list[Live], bounds: SchedulerConfig, pace: Pace) -> None:
        if not waiting:
            return
        taken, rows = self._take(batch, waiting, bounds, pace)
        trees = self._affordable(taken, bounds.batch_rows_max - rows, pace)
        for live, tree in zip(taken, trees, strict=True):
            del self.ready[live.session_id]
            live.phase = Phase.VERIFYING
            batch.members[live.session_id] = live
            batch.trees[live.session_id] = tree
            batch.items.append(live.batch_item(tree, bounds.prefill_chunk))

    def _take(self, batch: Batch, waiting: list[Live], bounds: SchedulerConfig, pace: Pace) -> tuple[list[Live], int]:
        """Requests that should join a batch, and the rows it then needs whatever is spent on adaptive trees."""
        rows, tokens = batch.row_count, batch.token_count
        taken: list[Live] = []
        for live in self._chosen(waiting, bounds, pace, batch.sent_at):
            if taken and not self.together(taken[0], live):
                continue
            need = _need(live, bounds)
            over = rows + need > bounds.batch_rows_max or tokens + len(live.tokens) > bounds.batch_tokens_max
            if over and (taken or batch.members):
                break
            taken.append(live)
            rows += need
            tokens += len(live.tokens)
        for live in waiting:
            live.passed_over += 1
        for live in taken:
            live.passed_over = 0
        return taken, rows

    def _chosen(self, waiting: list[Live], bounds: SchedulerConfig, pace: Pace, now: float) -> list[Live]:
        """Who should be verified next, in order of service; all of one strategy's way of batching are looked at
        together with the others, so that nobody waits for ever."""
        ways = [live.strategy.batching for live in waiting]
        optimised = Batching.OPTIMISED in ways
        if len(waiting) == 1 or not (optimised or Batching.DECOMPOSED in ways):
            return _by_urgency(waiting, bounds)
        rows = sum([live.rows for live in waiting])
        times = _pass_times(pace, padded=not optimised)
        longest = max([live.cached for live in waiting])
        whole_ms = times.verify_ms(len(waiting), longest, rows)
        fit = rows <= bounds.batch_rows_max and sum([live.cached for live in waiting]) <= bounds.batch_tokens_max
        worth_one_pass = whole_ms - times.base_ms <= (ALL_GO if optimised else ONE_PASS) * times.base_ms
        if fit and worth_one_pass and whole_ms <= bounds.batch_ms_max:
            return _by_urgency(waiting, bounds)
        if optimised:
            caps = Caps(bounds.batch_rows_max, bounds.batch_tokens_max, bounds.batch_ms_max, bounds.passed_over_max)
            waiting = _looked_at(waiting, bounds)
            candidates = [_candidate(live, now, bounds.prefill_chunk) for live in waiting]
            return [waiting[index] for index in choose(candidates, times, caps)]
        waiting = _by_urgency(waiting, bounds)
        groups = decompose([_candidate(live, now, bounds.prefill_chunk) for live in waiting], times)
        urgencies = [_urgency(live, bounds) for live in waiting]
        return [waiting[index] for index in max(groups, key=lambda group: urgencies[group[0]])]

    def _affordable(self, taken: Sequence[Live], rows_left: int, pace: Pace) -> list[TokenTree]:
        """Each request's tree within the verifier's bound; those of adaptive strategies as their `cut` says. Ways of
        cutting share the rows by their requests; what the first leaves is the next one's."""
        trees = [prune(live.tree, self.facts.tree_nodes_max) for live in taken]
        adaptive = [index for index, live in enumerate(taken) if live.strategy.adaptive and live.tree]
        rows_left, uncut_count = max(0, rows_left), len(adaptive)
        for kind in Cut:
            chosen = [index for index in adaptive if taken[index].strategy.cut is kind]
            if not chosen:
                continue
            spent_ms = sum(taken[index].draft_ms for index in chosen) / len(chosen)
            rows_max = rows_left * len(chosen) // uncut_count + len(chosen)
            kept = speculation.cut(kind, [trees[index] for index in chosen], pace, spent_ms, rows_max)
            for index, tree in zip(chosen, kept, strict=True):
                trees[index] = tree
            rows_left -= sum(map(len, kept))
            uncut_count -= len(chosen)
        return trees


def _rounds_press(queue: Queue, bounds: SchedulerConfig) -> bool:
    """True where a request that takes rounds is more urgent than all streamed ones."""
    if not all(queue):
        return False
    most, streamed_most = (max([_urgency(live, bounds) for live in lives]) for lives in queue)
    return most > streamed_most


def _by_urgency(waiting: list[Live], bounds: SchedulerConfig) -> list[Live]:
    """In order of service; of equal ones the first to come is the first to go."""
    return sorted(waiting, key=lambda live: _urgency(live, bounds), reverse=True)


def _urgency(live: Live, bounds: SchedulerConfig) -> tuple[int, int]:
    """By priority; who has been passed over too often comes before all others, whatever theirs."""
    overdue = live.passed_over >= bounds.passed_over_max
    return (live.passed_over, 0) if overdue else (0, live.admission.priority)


def _looked_at(waiting: list[Live], bounds: SchedulerConfig) -> list[Live]:
    """Whom a choice by cost is made among: of very many the first in order of service. With all of them a choice would
    cost in proportion to their number, and a round of all in proportion to its square."""
    if len(waiting) <= LOOKED_AT_MIN:
        return waiting
    if len({live.admission.priority for live in waiting}) > 1:
        waiting = _by_urgency(waiting, bounds)
    row_counts = accumulate(live.rows for live in waiting)
    count = 1 + sum(row_count < PASSES_LOOKED_AT * bounds.batch_rows_max for row_count in row_counts)
    return waiting[: max(LOOKED_AT_MIN, count)]


def _pass_times(pace: Pace, padded: bool) -> LineTimes:
    """A pass of the target as batches are composed for it. `padded` is SPIN's premise, that every cache is read to the
    length of the longest: there a ragged batch costs more than its parts."""
    return LineTimes(pace.verify.base_ms, pace.verify.slope_ms, pace.verify.kilotoken_ms if padded else 0.0)


def _need(live: Live, bounds: SchedulerConfig) -> int:
    """Rows a request adds to a batch at least."""
    context = min(len(live.tokens) - live.cached, bounds.prefill_chunk)
    return context + (0 if live.strategy.adaptive else len(live.tree))


def _rows(live: Live, prefill_chunk: int) -> int:
    """Rows a request is likely to add to a batch: an adaptive strategy's tree is cut once the batch is settled."""
    context, nodes = len(live.tokens) - live.cached, len(live.tree)
    return min(context, prefill_chunk) + (min(nodes, 2 * live.depth) if live.strategy.adaptive else nodes)


def _candidate(live: Live, now: float, prefill_chunk: int) -> Candidate:
    """A request as the choice of a batch sees it. Reading a prompt counts as worth its rows, since it costs them
    whenever it is done.

    With a deadline it needs passes for all tokens that it may have, each for as many as were promised or as it has had
    so far, and drafts between them. Where its text ends sooner it has more time than this says.
    """
    candidate = Candidate(live.cached, live.rows, live.worth, live.passed_over, live.admission.priority)
    if not live.admission.deadline:
        return candidate
    figures = live.figures
    per_pass = max(live.promised, 1.0 + figures.accepted_token_count / max(1, figures.round_count))
    pass_count = (len(live.tokens) - live.cached - 1) // prefill_chunk + math.ceil(live.left / per_pass)
    left_ms = (live.admission.deadline - now) * 1000 - (pass_count - 1) * live.draft_ms
    return candidate._replace(deadline_ms=left_ms, pass_count=pass_count)
