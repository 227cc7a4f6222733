"""What an engine is: a model with one cache slot per session, and one call that runs it over ragged token trees.

An engine is synchronous and belongs to one thread. It knows sessions, tokens and trees; it does not know requests,
strategies or the wire. A session's cache is always a plain sequence of tokens, except between `forward` and the `keep`
(or next `forward`) that follows it, when the nodes of a tree hang behind the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule
from cosine.core.tree import EMPTY, TokenTree


class Stopped(Exception):
    """A forward pass ended early because its caller wanted it to."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the rest of the mesh may know of a model. `tokens_max` is prompt and output together; `device` is what it
    computes on, in torch's words, or "paced" where it plays other hardware."""

    model_id: str
    vocab_size: int
    tokens_max: int
    tokenizer_fingerprint: str
    eos_token_ids: tuple[int, ...]
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds fixed when the engine starts."""

    sessions_max: int = 64
    tokens_max: int = 2048
    tree_nodes_max: int = 64
    prefill_chunk: int = 512


@dataclass(frozen=True, slots=True)
class Segment:
    """New tokens of one session: first forget all beyond `base_length`, then `token_ids` in a row, then a tree.

    The tree hangs below the last of `token_ids`. `token_ids` has at least one entry.
    """

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    tree: TokenTree = EMPTY


class Logits(Protocol):
    """Output of one forward pass, left on the device until asked for: `[rows, vocab]`.

    Per segment, in order: one row for the last of `token_ids` (the root), then one per tree node.
    """

    def picks(self, rules: Sequence[RowRule]) -> list[int]:
        """The pick of every row, equal to `core.picking.pick` of it; one copy to the host. One rule per row."""
        ...

    def children(
        self, rows: Sequence[int], rules: Sequence[RowRule], width: int
    ) -> list[tuple[list[int], list[float]]]:
        """`core.picking.top_children` of the given rows, one rule each."""
        ...

    def row(self, index: int) -> NDArray[np.float32]:
        """One row on the host, `[vocab]`."""
        ...


class Engine(Protocol):
    """A model that serves sessions."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def limits(self) -> EngineLimits: ...

    def tokens(self, session_id: str) -> Sequence[int]:
        """Tokens the cache holds in sequence for a session; empty for an unknown one. Tree nodes do not count."""
        ...

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        """Runs all segments (of different sessions) and caches what it ran. Long `token_ids` run in chunks.

        `stop` is asked again and again while the pass runs, at least between the layers of a model. Once it says true,
        the pass ends and raises Stopped. Every session then holds its first `base_length` tokens, followed by as many
        of its `token_ids` as had been run to the end, and no tree.

        A new session takes the slot of the least recently used one where all are taken. Raises
        BadRequest(SESSION_TOO_LONG) before touching anything where a segment would exceed `tokens_max`.
        The caller checks `base_length <= len(tokens(session_id))` and token ranges first.
        """
        ...

    def keep(self, session_id: str, nodes: Sequence[int]) -> None:
        """Ends the last forward pass of a session: the path `nodes` (root down) joins the sequence, the rest goes."""
        ...

    def close(self, session_ids: Iterable[str]) -> None:
        """Frees sessions; unknown ones are ignored."""
        ...

    def agreement(self, token_ids: Sequence[int], others: Sequence[int]) -> list[float]:
        """How alike the model finds two tokens, pair by pair: the cosine of their input embeddings, -1 to 1."""
        ...

    def warm_up(self) -> None:
        """Runs typical shapes once, so that the first request does not pay for it."""
        ...
