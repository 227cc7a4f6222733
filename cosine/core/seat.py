"""A verifier as the scheduler sees it: who sits there, who waits for its next batch, what it is working on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cosine.core import events as ev
from cosine.core import speculation
from cosine.core.live import Live, Phase
from cosine.core.planner import traceparent
from cosine.core.speculation import Pace
from cosine.core.tree import TokenTree, prune


class BatchBounds(Protocol):
    """The part of the scheduler's configuration that concerns batches, in tokens."""

    @property
    def prefill_chunk(self) -> int: ...

    @property
    def batch_rows_max(self) -> int: ...


@dataclass(slots=True, eq=False)
class Seat:
    """One verifier. `sessions` are all that sit here, `ready` those that wait, `batch` those under way with `trees`."""

    facts: ev.VerifierFacts
    sessions: set[str] = field(default_factory=set)
    ready: OrderedDict[str, Live] = field(default_factory=OrderedDict)
    batch_id: int = 0
    batch: dict[str, Live] = field(default_factory=dict)
    trees: dict[str, TokenTree] = field(default_factory=dict)
    sent_at: float = 0.0
    row_count: int = 0

    @property
    def has_room(self) -> bool:
        return len(self.sessions) < self.facts.sessions_max

    def compose(self, batch_id: int, bounds: BatchBounds, pace: Pace, now: float) -> ev.SendBatch:
        """Takes who waits, in order and within bounds, into a new batch."""
        taken, rows = self._take(bounds)
        trees = self._affordable(taken, bounds.batch_rows_max - rows, pace)
        items = [live.batch_item(tree, bounds.prefill_chunk) for live, tree in zip(taken, trees, strict=True)]
        for live, tree in zip(taken, trees, strict=True):
            del self.ready[live.session_id]
            live.phase = Phase.VERIFYING
            self.batch[live.session_id] = live
            self.trees[live.session_id] = tree
        self.batch_id, self.sent_at = batch_id, now
        self.row_count = sum(len(item.token_ids) + len(item.tree) for item in items)
        return ev.SendBatch(self.facts.peer_id, batch_id, tuple(items), traceparent(taken))

    def clear(self) -> list[Live]:
        """Ends the batch under way; whoever was in it."""
        batch, self.batch, self.trees = self.batch, {}, {}
        return list(batch.values())

    def _take(self, bounds: BatchBounds) -> tuple[list[Live], int]:
        """Requests of the next batch, and the rows they need whatever is spent on adaptive trees."""
        taken: list[Live] = []
        rows = 0
        for live in self.ready.values():
            need = min(len(live.tokens) - live.cached, bounds.prefill_chunk)
            need += 0 if live.strategy.adaptive else len(live.tree)
            if taken and rows + need > bounds.batch_rows_max:
                break
            taken.append(live)
            rows += need
        return taken, rows

    def _affordable(self, taken: Sequence[Live], rows_left: int, pace: Pace) -> list[TokenTree]:
        """Each request's tree within the verifier's bound; of adaptive strategies, what of it is worth its rows."""
        trees = [prune(live.tree, self.facts.tree_nodes_max) for live in taken]
        chosen = [index for index, live in enumerate(taken) if live.strategy.adaptive and live.tree]
        if chosen:
            spent_ms = sum(taken[index].draft_ms for index in chosen) / len(chosen)
            rows_max = max(0, rows_left) + len(chosen)
            kept = speculation.spend([trees[index] for index in chosen], pace, spent_ms, rows_max)
            for index, tree in zip(chosen, kept, strict=True):
                trees[index] = tree
        return trees
