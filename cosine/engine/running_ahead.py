"""A drafter that runs ahead, on an engine: the forward passes that `cosine.core.running_ahead` asks for, and a view of
the engine that leaves out those of a step whose results it knows.

`draft` itself is unchanged: it runs on that view. Nothing here knows steps' senders or time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule
from cosine.core.plan import DraftItem
from cosine.core.running_ahead import Children, Foresight, Part
from cosine.engine.around import Around
from cosine.engine.base import Engine, Logits, Segment, Stopped
from cosine.engine.drafting import DraftResult, draft
from cosine.engine.verifying import Status


class RunningAhead:
    """`draft` for the engine, with its idle time used. Belongs to the engine's thread; holds as many sessions as the
    engine does. `engine` is the engine for everybody else: a session that is closed there is forgotten here."""

    def __init__(self, engine: Engine) -> None:
        self.foresight = Foresight(engine.limits.sessions_max, engine.card.tokens_max)
        self.engine: Engine = _View(engine, self.foresight)
        self._engine = engine

    def draft(self, items: Sequence[DraftItem], stop: Callable[[str], bool] | None = None) -> list[DraftResult]:
        """As `drafting.draft`."""
        self.foresight.begin(items)
        results = draft(self.engine, items, stop)
        trees = (result.tree if result.status is Status.OK else None for result in results)
        self.foresight.end(zip(items, trees, strict=True), self._engine.tokens)
        return results

    def idle(self, waiting: Callable[[], Sequence[DraftItem]] = tuple) -> bool:
        """Runs one forward pass ahead; False where none is worth it.

        `waiting` tells what is asked for meanwhile: the pass goes on only if it is what all of that needs.
        """
        wanted = self.foresight.next_pass(self._engine.tokens)
        if not wanted:
            return False
        segments = [Segment(part.session_id, part.base_length, part.token_ids) for part in wanted]
        try:
            logits = self._engine.forward(segments, lambda: not self.foresight.foreseen(waiting()))
        except Stopped:
            return True
        rules, width = [part.rule for part in wanted], max(part.width for part in wanted)
        found = logits.children(range(len(rules)), rules, width)
        for part in wanted:
            self._engine.keep(part.session_id, ())
        self.foresight.learn({part.session_id: kids for part, kids in zip(wanted, found, strict=True)})
        return True


class _View(Around):
    """The engine as `draft` sees it: no pass where its result is known, no more cached than is to be shown."""

    def __init__(self, engine: Engine, foresight: Foresight) -> None:
        super().__init__(engine)
        self._foresight = foresight
        self._skipped: set[str] = set()

    def tokens(self, session_id: str) -> Sequence[int]:
        return self._foresight.shown(session_id, self._engine.tokens(session_id))

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        known = self._known(segments)
        self._skipped = {segments[index].session_id for index in known}
        if not known:
            return self._engine.forward(segments, stop)
        rest = [segment for index, segment in enumerate(segments) if index not in known]
        logits = self._engine.forward(rest, stop) if rest else None
        return _Joined(logits, [1 + len(segment.tree) for segment in segments], known)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        if session_id not in self._skipped:
            self._engine.keep(session_id, nodes)

    def close(self, session_ids: Iterable[str]) -> None:
        ended = list(session_ids)
        self._foresight.close(ended)
        self._engine.close(ended)

    def _known(self, segments: Sequence[Segment]) -> dict[int, Children]:
        """Children by segment, of those that need no pass."""
        caches = [self._engine.tokens(segment.session_id) for segment in segments]
        known: dict[int, Children] = {}
        for index, (segment, held) in enumerate(zip(segments, caches, strict=True)):
            part = Part(segment.session_id, segment.base_length, segment.token_ids)
            kids = self._foresight.answer(part, held, bare=all(caches) and not segment.tree)
            if kids is not None:
                known[index] = kids
        return known


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
