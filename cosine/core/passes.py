"""What a forward pass of the target holds, how long it takes, and what it costs per token.

Of all who wait a pass takes a set S and leaves R behind. With t(.) the time of a pass and e(.) the tokens that it is
expected to commit,

    cost(S) = (t_draft(S) + t_verify(S) + weight * t_verify(R)) / (e(S) + weight * e(R))

is to be small, under caps on rows, cached tokens and latency. Source: CoSine (arXiv 2503.10325), batch assignment,
which minimises a weighted sum of time per request and of tokens verified. Two deviations:

- A pass is worth the tokens it is expected to commit, not the requests it holds: three that commit twelve tokens are
  better than four that commit four. A part of a prompt commits none and counts as one.
- What is left behind enters as one more pass, discounted by `weight`, instead of as a term `lambda * f(nodes)` added to
  a time, whose lambda would have to be found anew for each machine. At weight 0 the cost is the bare time per token of
  this pass: that skims off the cheapest requests, although the others cost no less later. At weight 1 it is the time
  per token of both passes: a request is left out only where two passes take less time than one (padding). In between
  it is also left out where that shortens this pass by more than `weight / (1 - weight)` times a pass's fixed part:
  never where a pass is bound by reading the weights and one more request is nearly free.

It does not know how a set is found (`packing.py`) nor who must go whatever it costs (`batching.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

WORTH_MIN = 1.0

Table = NDArray[Any]
Size = TypeVar("Size", float, Table)


class Candidate(NamedTuple):
    """A request that waits. (A tuple: one is made per request that waits, for every batch.)

    `length` counts its cached tokens, `row_count` the rows it adds to a pass (appended tokens and tree nodes, at least
    1), `expected_count` the tokens it is expected to commit, `waited_count` the batches that went without it since it
    became ready. The higher `priority` goes first. `deadline_ms` is the time it has left for `pass_count` passes, this
    one and those it needs until its text is complete, whatever lies between them left out; None: as long as it takes.
    `draft_ms` is drafting that a pass with it has to wait for; 0 where its tree is there.
    """

    length: int
    row_count: int
    expected_count: float
    waited_count: int = 0
    priority: int = 0
    deadline_ms: float | None = None
    draft_ms: float = 0.0
    pass_count: int = 1

    @property
    def share_ms(self) -> float:
        """What of its time each of its passes may take; infinite without a deadline."""
        return math.inf if self.deadline_ms is None else self.deadline_ms / self.pass_count

    @property
    def limit_ms(self) -> float:
        """What this pass may take: all that is left where it is the last, else as long as it takes."""
        return self.share_ms if self.pass_count == 1 else math.inf

    @property
    def worth(self) -> float:
        return max(WORTH_MIN, self.expected_count)


@dataclass(frozen=True, slots=True)
class Caps:
    """What a batch may hold and take: rows, cached tokens, milliseconds of drafting and pass; and how many batches may
    go without a request before it must go."""

    row_count_max: int
    token_count_max: int
    latency_ms_max: float
    waited_count_max: int


class VerifyTimes(Protocol):
    """Predicts a forward pass. It must not become shorter as an argument grows."""

    def verify_ms(self, batch: Size, longest: Size, row_count: Size) -> Size:
        """Milliseconds for `batch` requests of which the longest has `longest` cached tokens, with `row_count` rows;
        of tables, entry by entry."""


@dataclass(frozen=True, slots=True)
class LineTimes:
    """`base_ms + row_ms * rows + kilotoken_ms * (batch * longest / 1000)`; the last term is attention to caches that
    are padded to the longest."""

    base_ms: float
    row_ms: float
    kilotoken_ms: float = 0.0

    def verify_ms(self, batch: Size, longest: Size, row_count: Size) -> Size:
        """See VerifyTimes."""
        return self.base_ms + self.row_ms * row_count + self.kilotoken_ms * batch * longest / 1000


class PassLoad(NamedTuple):
    """What a pass holds: sums, the longest request, the slowest drafting. (A tuple: hundreds are made per decision.)"""

    request_count: int = 0
    row_count: int = 0
    token_count: int = 0
    longest: int = 0
    draft_ms: float = 0.0
    worth: float = 0.0

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> PassLoad:
        """What a pass with all of them holds."""
        return cls(
            len(candidates),
            sum([candidate.row_count for candidate in candidates]),
            sum([candidate.length for candidate in candidates]),
            max([candidate.length for candidate in candidates], default=0),
            max([candidate.draft_ms for candidate in candidates], default=0.0),
            sum([candidate.worth for candidate in candidates]),
        )

    def plus(self, candidate: Candidate) -> PassLoad:
        """With one more."""
        request_count, row_count, token_count, longest, draft_ms, worth = self
        return PassLoad(
            request_count + 1,
            row_count + candidate.row_count,
            token_count + candidate.length,
            max(longest, candidate.length),
            max(draft_ms, candidate.draft_ms),
            worth + candidate.worth,
        )


class Tables(NamedTuple):
    """A `PassLoad` per entry."""

    request_count: Table
    row_count: Table
    token_count: Table
    longest: Table
    draft_ms: Table
    worth: Table


@dataclass(frozen=True, slots=True)
class Goal:
    """Judges what a pass holds by caps and cost."""

    times: VerifyTimes
    caps: Caps
    weight: float

    def pass_ms(self, load: PassLoad) -> float:
        """Drafting and pass, of a load that is not empty."""
        return load.draft_ms + self.times.verify_ms(load.request_count, load.longest, load.row_count)

    def has_room(self, load: PassLoad) -> bool:
        """Within the caps on rows and cached tokens."""
        return load.row_count <= self.caps.row_count_max and load.token_count <= self.caps.token_count_max

    def fits(self, load: PassLoad) -> bool:
        """Within all caps."""
        return self.has_room(load) and self.pass_ms(load) <= self.caps.latency_ms_max

    def cost(self, load: PassLoad, whole: PassLoad, longest_left: int) -> float:
        """Milliseconds per token where all of `whole` that is not in `load` is left behind; infinite for nobody and
        over the cap on latency."""
        if not load.request_count:
            return math.inf
        time_ms = self.pass_ms(load)
        if time_ms > self.caps.latency_ms_max:
            return math.inf
        left_count = whole.request_count - load.request_count
        if left_count:
            left_rows = whole.row_count - load.row_count
            time_ms += self.weight * self.times.verify_ms(left_count, longest_left, left_rows)
        return time_ms / (load.worth + self.weight * (whole.worth - load.worth))

    def costs(self, loads: Tables, whole: PassLoad, longest_left: Table) -> Table:
        """`cost` for tables of what passes hold, none of them empty; infinite over any cap."""
        verify_ms, caps = self.times.verify_ms, self.caps
        time_ms = loads.draft_ms + verify_ms(loads.request_count, loads.longest, loads.row_count)
        over = (loads.row_count > caps.row_count_max) | (loads.token_count > caps.token_count_max)
        over |= time_ms > caps.latency_ms_max
        left_count = whole.request_count - loads.request_count
        left_ms = verify_ms(left_count, longest_left, whole.row_count - loads.row_count)
        time_ms += self.weight * np.where(left_count > 0, left_ms, 0.0)
        return np.where(over, np.inf, time_ms / (loads.worth + self.weight * (whole.worth - loads.worth)))
