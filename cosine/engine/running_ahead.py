"""A drafter that runs ahead: while nobody asks, it expands the end of its own best path, where the next step probably
begins.

Under token fusion a drafter waits, between its answer and the next step, for fusion and the slowest of the others. If
the fused token is its own, the children it found meanwhile are that step's, without a forward pass; if not, the pass is
rolled back like any guess. `draft` itself is unchanged: it runs on an engine that skips a pass only where it would
repeat, token for token, one whose children are still known, and that shows no more cached tokens than there would be
without. So answers are the same by construction. It knows neither steps' senders nor time.

A step saves its pass only if all of its sessions go on as foreseen; where that is less likely than not (several
sessions, a drafter that is seldom the most confident), nothing is run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule
from cosine.core.tree import ROOT, TokenTree, children
from cosine.engine.base import Engine, EngineLimits, Logits, ModelCard, Segment, Stopped
from cosine.engine.drafting import DraftItem, DraftResult, draft
from cosine.engine.verifying import Status

AHEAD_MAX = 4  # positions
EVEN = 0.5
RIGHT_PRIOR = 0.75
RIGHT_FADE = 0.95

Children = tuple[list[int], list[float]]


@dataclass(slots=True)
class _Ahead:
    """One session: the context of its last answer is `start` tokens long, its best path and what was found ahead of
    that are `path`, of which `left` ends are still to be expanded. `found` are children by the length of the sequence
    they continue, `shown` the length of the cache as it would be without running ahead."""

    item: DraftItem
    start: int
    shown: int
    path: list[int]
    left: int
    found: dict[int, Children] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Length of the sequence that is expanded next."""
        return self.start + len(self.path)


class RunningAhead:
    """`draft` for the engine, with its idle time used. Belongs to the engine's thread; holds as many sessions as the
    engine does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._aheads: OrderedDict[str, _Ahead] = OrderedDict()
        self._view = _View(engine, self._aheads)
        self._turn: list[str] = []
        self._right = RIGHT_PRIOR
        self.pass_count = 0

    @property
    def skipped_count(self) -> int:
        """Rows of steps that needed no forward pass any more; `pass_count` passes were run ahead for that."""
        return self._view.skipped_count

    @property
    def engine(self) -> Engine:
        """The engine for everybody else: a session that is closed there is forgotten here."""
        return self._view

    def draft(self, items: Sequence[DraftItem], stop: Callable[[str], bool] | None = None) -> list[DraftResult]:
        """As `drafting.draft`."""
        for item in items:
            ahead = self._aheads.get(item.session_id)
            if ahead is None:
                continue
            if ahead.item.sampling != item.sampling or ahead.item.width < item.width:
                ahead.found.clear()
            if ahead.path and item.base_length >= ahead.start:
                self._right += (1 - RIGHT_FADE) * (self._foreseen(item) - self._right)
        results = draft(self._view, items, stop)
        for item, result in zip(items, results, strict=True):
            self._go_on(item, result)
        self._turn = [item.session_id for item in items if item.run_ahead]
        return results

    def idle(self, waiting: Callable[[], Sequence[DraftItem]] = tuple) -> bool:
        """Runs one forward pass ahead, for those sessions of the last step that asked for it; False where none has
        anything left, or where it would probably be in vain.

        `waiting` tells what is asked for meanwhile: the pass goes on only if it is what all of that needs.
        """
        segments: dict[str, Segment] = {}
        for session_id in self._turn:
            segment = self._next(session_id, self._aheads[session_id]) if session_id in self._aheads else None
            if segment is not None:
                segments[session_id] = segment
        if not segments or self._right ** len(self._turn) < EVEN:
            return False
        for session_id, segment in segments.items():
            ahead = self._aheads[session_id]
            ahead.found = {length: kids for length, kids in ahead.found.items() if length <= segment.base_length}
        try:
            logits = self._engine.forward(
                list(segments.values()), lambda: not all(self._foreseen(item) for item in waiting())
            )
        except Stopped:
            return True
        self.pass_count += 1
        aheads = [self._aheads[session_id] for session_id in segments]
        rules = [RowRule(ahead.item.sampling, ahead.end) for ahead in aheads]
        found = logits.children(range(len(rules)), rules, max(ahead.item.width for ahead in aheads))
        for session_id, ahead, kids in zip(segments, aheads, found, strict=True):
            self._engine.keep(session_id, ())
            ahead.found[ahead.end] = kids
        return True

    def _foreseen(self, item: DraftItem) -> bool:
        """Whether an item goes on from the path that is being run ahead."""
        ahead = self._aheads.get(item.session_id)
        if ahead is None or item.base_length < ahead.start:
            return False
        offset = item.base_length - ahead.start
        return tuple(ahead.path[offset : offset + len(item.token_ids)]) == item.token_ids

    def _go_on(self, item: DraftItem, result: DraftResult) -> None:
        """Notes where to run ahead of an answer. Only the first pass of a step can be foreseen where it has a beam."""
        known = self._aheads.pop(item.session_id, None)
        path = best_path(result.tree) if item.run_ahead and result.status is Status.OK else []
        if known is None and not path:
            return
        ahead = known or _Ahead(item, 0, len(self._engine.tokens(item.session_id)), [], 0)
        ahead.item, ahead.start, ahead.path = item, item.base_length + len(item.token_ids), path
        ahead.left = min(AHEAD_MAX, item.step_count if item.beam == 1 else 1) if path else 0
        ahead.found = {length: kids for length, kids in ahead.found.items() if length > ahead.start and path}
        self._aheads[item.session_id] = ahead
        while len(self._aheads) > self._engine.limits.sessions_max:
            self._aheads.popitem(last=False)

    def _next(self, session_id: str, ahead: _Ahead) -> Segment | None:
        """What to run next for a session: its path beyond what is cached; None where it has run far enough."""
        held = self._engine.tokens(session_id)
        cached = _agreeing(held, ahead)
        while ahead.left and cached == len(ahead.path) and ahead.end in ahead.found:
            ahead.left -= 1
            ahead.path += ahead.found[ahead.end][0][:1]
            cached = _agreeing(held, ahead)
        if not ahead.left or len(held) < ahead.start or ahead.end > self._engine.card.tokens_max:
            ahead.left = 0
            return None
        cached = min(cached, len(ahead.path) - 1)
        return Segment(session_id, ahead.start + cached, tuple(ahead.path[cached:]))


def _agreeing(held: Sequence[int], ahead: _Ahead) -> int:
    """How much of the path is cached."""
    pairs = zip(held[ahead.start :], ahead.path, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def best_path(tree: TokenTree) -> list[int]:
    """Tokens from the root down, child by most confident child (ties: lowest id): where fusion goes on if this drafter
    is the most confident one."""
    kids = children(tree)
    path: list[int] = []
    node = ROOT
    while node in kids:
        node = max(kids[node].values(), key=lambda kid: (tree.confidences[kid], -tree.token_ids[kid]))
        path.append(tree.token_ids[node])
    return path


class _View:
    """The engine as `draft` sees it: no pass for a sequence whose children are known, no cache beyond `shown`."""

    def __init__(self, engine: Engine, aheads: OrderedDict[str, _Ahead]) -> None:
        self._engine = engine
        self._aheads = aheads
        self._skipped: set[str] = set()
        self.skipped_count = 0

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def limits(self) -> EngineLimits:
        return self._engine.limits

    def tokens(self, session_id: str) -> Sequence[int]:
        held = self._engine.tokens(session_id)
        ahead = self._aheads.get(session_id)
        return held if ahead is None or len(held) <= ahead.shown else held[: ahead.shown]

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        known = self._all_known(segments)
        self._skipped = {segments[index].session_id for index in known}
        self.skipped_count += len(known)
        for index, part in enumerate(segments):
            if index in known:
                self._aheads[part.session_id].shown = part.base_length + len(part.token_ids)
            else:
                self._aheads.pop(part.session_id, None)
        if not known:
            return self._engine.forward(segments, stop)
        rest = [part for index, part in enumerate(segments) if index not in known]
        logits = self._engine.forward(rest, stop) if rest else None
        return _Joined(logits, [1 + len(part.tree) for part in segments], known)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        if session_id not in self._skipped:
            self._engine.keep(session_id, nodes)

    def close(self, session_ids: Iterable[str]) -> None:
        ended = list(session_ids)
        for session_id in ended:
            self._aheads.pop(session_id, None)
        self._engine.close(ended)

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        return self._engine.agreement(token_ids, others)

    def warm_up(self) -> None:
        self._engine.warm_up()

    def _all_known(self, segments: Sequence[Segment]) -> dict[int, Children]:
        """Children of the segments that need no pass. None does where a session comes anew: it may take the slot of one
        that is not in its pass."""
        if not all(self._engine.tokens(part.session_id) for part in segments):
            return {}
        return {index: kids for index, part in enumerate(segments) if (kids := self._known(part)) is not None}

    def _known(self, segment: Segment) -> Children | None:
        """Children behind the segment's last token, where the cache holds just these tokens and they are known."""
        ahead = self._aheads.get(segment.session_id)
        end = segment.base_length + len(segment.token_ids)
        if ahead is None or segment.tree or end not in ahead.found:
            return None
        held = self._engine.tokens(segment.session_id)
        return ahead.found[end] if tuple(held[segment.base_length : end]) == segment.token_ids else None


class _Joined:
    """Rows of a pass, and between them rows that needed none: of these only the children are known. `known` is by
    segment, `row_counts` per segment."""

    def __init__(self, logits: Logits | None, row_counts: Sequence[int], known: Mapping[int, Children]) -> None:
        self._logits = logits
        self._places: list[int | Children] = []
        row = 0
        for index, count in enumerate(row_counts):
            if index in known:
                self._places.append(known[index])
            else:
                self._places += range(row, row + count)
                row += count

    def children(self, rows: Sequence[int], rules: Sequence[RowRule], width: int) -> list[Children]:
        places = [self._places[row] for row in rows]
        asked = [(place, rule) for place, rule in zip(places, rules, strict=True) if isinstance(place, int)]
        run: Iterator[Children] = iter(())
        if asked:
            assert self._logits is not None
            run = iter(self._logits.children([row for row, _ in asked], [rule for _, rule in asked], width))
        return [next(run) if isinstance(place, int) else (place[0][:width], place[1][:width]) for place in places]

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        return [ids[0] for ids, _ in self.children(range(len(self._places)), rules, 1)]

    def row(self, index: int) -> NDArray[np.float32]:
        place = self._places[index]
        assert isinstance(place, int), "of a row that was not run only the children are known"
        assert self._logits is not None
        return self._logits.row(place)
