"""An engine (`cosine.engine.base.Engine`) whose model is a recording, and that writes down every forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule
from cosine.core.tree import ROOT, path_tokens
from cosine.engine.base import EngineLimits, Logits, ModelCard, Segment, Stopped
from cosine.sim.library import Context, Library, Script


class RecordedEngine:
    """`drafter` is the number of the drafter that it is; None: it is the target."""

    def __init__(self, library: Library, drafter: int | None) -> None:
        self.library, self.drafter = library, drafter
        self.passes: list[tuple[int, int]] = []
        self._held: dict[str, list[int]] = {}
        self._trees: dict[str, Segment] = {}

    @property
    def card(self) -> ModelCard:
        return ModelCard("recorded", self.library.vocab_size, 2048, "fingerprint", ())

    @property
    def limits(self) -> EngineLimits:
        return EngineLimits()

    def tokens(self, session_id: str) -> Sequence[int]:
        return self._held.get(session_id, [])

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        rows = sum(len(segment.token_ids) + len(segment.tree) for segment in segments)
        self.passes.append((rows, sum(segment.base_length for segment in segments)))
        contexts: list[tuple[int, ...]] = []
        for segment in segments:
            del self._held.setdefault(segment.session_id, [])[segment.base_length :]
        if stop is not None and stop():
            raise Stopped
        for segment in segments:
            held = self._held[segment.session_id]
            held += segment.token_ids
            self._trees[segment.session_id] = segment
            nodes = (ROOT, *range(len(segment.tree)))
            contexts += [(*held, *path_tokens(segment.tree, node)) for node in nodes]
        return _Rows(self, contexts)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        self._held[session_id] += [self._trees[session_id].tree.token_ids[node] for node in nodes]

    def close(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._held.pop(session_id, None)

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        return [float(token == other) for token, other in zip(token_ids, others, strict=True)]

    def warm_up(self) -> None:
        pass


class _Rows:
    def __init__(self, engine: RecordedEngine, contexts: Sequence[tuple[int, ...]]) -> None:
        self._engine, self._contexts = engine, contexts

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        found = []
        for tokens, rule in zip(self._contexts, rules, strict=True):
            assert rule.position == len(tokens)
            script, key = self._place(tokens)
            found.append(self._engine.library.pick(script, len(tokens), key))
        return found

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        assert self._engine.drafter is not None
        found = []
        for row, rule in zip(rows, rules, strict=True):
            tokens = self._contexts[row]
            assert rule.position == len(tokens)
            script, key = self._place(tokens)
            greedily = rule.sampling.temperature == 0.0
            best = self._engine.library.children(self._engine.drafter, greedily, script, len(tokens), key)[:width]
            found.append(([token for token, _ in best], [sure for _, sure in best]))
        return found

    def row(self, index: int) -> NDArray[np.float32]:
        raise NotImplementedError

    def _place(self, tokens: Sequence[int]) -> tuple[Script, int]:
        context = Context(self._engine.library.script_of(tokens))
        context.append(0, tokens)
        return context.script, context.key
