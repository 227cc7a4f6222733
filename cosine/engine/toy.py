"""A toy language model in numpy: deterministic, tiny, with the whole behaviour of a real engine. No torch.

The logits at a place are hashed from the last few tokens, so any tree, batch or restart must give the same ones. A toy
drafter mixes the target's logits with its own: `skill` is the target's share (1 always agrees, 0 never), `home` names
the domain where it has that skill (the session's first token modulo 4), `abroad` its skill elsewhere, and `sharpness`
stretches its confidence without making it right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cosine.core.errors import BadRequest, Full
from cosine.core.noise import gumbel, mix
from cosine.core.picking import RowRule, pick_rows, top_children
from cosine.core.tree import ROOT, path_tokens
from cosine.engine.base import EngineLimits, ModelCard, Segment, Stopped

DOMAIN_COUNT = 4
CONTEXT_TOKENS = 3
LOGIT_SCALE = 2.0
EOS_TOKEN_ID = 256
VOCAB_SIZE = 257


@dataclass(frozen=True, slots=True)
class ToySpec:
    """What `toy:seed=1,own=7,skill=0.8,home=2,abroad=0.4,sharpness=1` says. `own` seeds a drafter's own opinions."""

    seed: int = 1
    own: int = 0
    skill: float = 1.0
    home: int = -1
    abroad: float = 0.0
    sharpness: float = 1.0

    def skill_at(self, first_token: int) -> float:
        """The skill in a session that starts with `first_token`; home -1 is at home everywhere."""
        return self.skill if self.home in (-1, first_token % DOMAIN_COUNT) else self.abroad


def parse_spec(source: str) -> ToySpec:
    """Raises BadRequest, naming the known keys, where a toy model's source makes no sense."""
    kinds = {item.name: int if item.name in ("seed", "own", "home") else float for item in fields(ToySpec)}
    given: dict[str, float] = {}
    for part in source.removeprefix("toy").removeprefix(":").split(","):
        key, _, value = part.partition("=")
        if not part:
            continue
        try:
            given[key] = kinds[key](value)
        except (KeyError, ValueError):
            raise BadRequest(
                "TOY_SPEC", f"{part!r} in {source!r} is not KEY=NUMBER with one of {', '.join(kinds)}"
            ) from None
    return ToySpec(**given)  # type: ignore[arg-type]  # `kinds` has made them what the fields are


class ToyLogits:
    """Rows on the host; the slow path is the only path."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows = rows

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        return pick_rows(self._rows, rules)

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        return [top_children(self._rows[row], rule, width) for row, rule in zip(rows, rules, strict=True)]

    def row(self, index: int) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self._rows[index]
        return row


class ToyEngine:
    """An engine whose cache is the token list itself."""

    def __init__(self, source: str, fingerprint: str, limits: EngineLimits) -> None:
        self._spec = parse_spec(source)
        self._card = ModelCard(source, VOCAB_SIZE, limits.tokens_max, fingerprint, (EOS_TOKEN_ID,))
        self._limits = limits
        self._sessions: dict[str, list[int]] = {}
        self._hanging: dict[str, Segment] = {}

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def limits(self) -> EngineLimits:
        return self._limits

    def tokens(self, session_id: str) -> Sequence[int]:
        return self._sessions.get(session_id, ())

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> ToyLogits:
        if len(segments) > self._limits.sessions_max:
            raise Full("BATCH_TOO_LARGE", f"a batch holds at most {self._limits.sessions_max} sessions")
        for segment in segments:
            if segment.base_length + len(segment.token_ids) + len(segment.tree) > self._limits.tokens_max:
                raise BadRequest("SESSION_TOO_LONG", f"a session holds at most {self._limits.tokens_max} tokens")
        for segment in segments:  # sessions of this pass are the last to make room for its new ones
            if segment.session_id in self._sessions:
                self._sessions[segment.session_id] = self._sessions.pop(segment.session_id)
        for segment in segments:
            self._make_room(segment)
        if stop is not None and stop():
            raise Stopped
        return ToyLogits(np.stack([row for segment in segments for row in self._run(segment)]))

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        segment = self._hanging.pop(session_id)
        self._sessions[session_id] += [segment.tree.token_ids[node] for node in nodes]

    def close(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._sessions.pop(session_id, None)
            self._hanging.pop(session_id, None)

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        """1 for the same token, else a hash of the two between 0 and 1."""
        return [_likeness(*sorted(pair)) for pair in zip(token_ids, others, strict=True)]

    def warm_up(self) -> None:
        return None

    def _make_room(self, segment: Segment) -> None:
        """Forgets what lies beyond a segment's base, and the least recently used session where all are taken."""
        held = self._sessions.pop(segment.session_id, [])
        while len(self._sessions) >= self._limits.sessions_max:
            self.close([next(iter(self._sessions))])
        self._sessions[segment.session_id] = held[: segment.base_length]
        self._hanging.pop(segment.session_id, None)

    def _run(self, segment: Segment) -> list[NDArray[np.float32]]:
        tokens = self._sessions[segment.session_id]
        tokens += segment.token_ids
        self._hanging[segment.session_id] = segment
        nodes = range(ROOT, len(segment.tree))
        return [self._logits([*tokens, *path_tokens(segment.tree, node)]) for node in nodes]

    def _logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        spec = self._spec
        logits = spec.skill_at(tokens[0]) * _opinion(spec.seed, tokens)
        if spec.own:
            logits = logits + (1.0 - spec.skill_at(tokens[0])) * _opinion(mix(spec.own), tokens)
        return (logits * spec.sharpness).astype(np.float32)


def _likeness(low: int, high: int) -> float:
    return 1.0 if low == high else mix(mix(low + 1) ^ (high + 1)) / 2.0**64


def _opinion(seed: int, tokens: Sequence[int]) -> NDArray[np.float64]:
    key = seed
    for token in tokens[-CONTEXT_TOKENS:]:
        key = mix(key ^ (token + 1))
    return LOGIT_SCALE * gumbel(key, 0, VOCAB_SIZE)
