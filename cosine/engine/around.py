"""An engine around another: everything is asked of the other, but for what a class derived from it does its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cosine.engine.base import Engine, EngineLimits, Logits, ModelCard, Segment


class Around:
    """See `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def limits(self) -> EngineLimits:
        return self._engine.limits

    def tokens(self, session_id: str) -> Sequence[int]:
        return self._engine.tokens(session_id)

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        return self._engine.forward(segments, stop)

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        self._engine.keep(session_id, nodes)

    def close(self, session_ids: Iterable[str]) -> None:
        self._engine.close(session_ids)

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        return self._engine.agreement(token_ids, others)

    def warm_up(self) -> None:
        self._engine.warm_up()
