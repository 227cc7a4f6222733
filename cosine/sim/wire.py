"""What lies between two peers: messages take their turn on it, keep their order, and arrive a latency later.

Sizes are those of the messages in `protos/`, estimated from how many sessions, tokens and nodes they carry.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosine.core.events import BatchItem, SessionVerdict
from cosine.core.plan import DraftItem, Guess
from cosine.sim.clock import Call, Clock
from cosine.sim.profile import Link

REQUEST_BYTES = 66  # with its trace
ANSWER_BYTES = 8
ITEM_BYTES = 38
RESULT_BYTES = 30
TOKEN_BYTES = 2
NODE_BYTES = 8
BARE_NODE_BYTES = 3  # without confidence and proposers


class Wire:
    """One direction of one link."""

    def __init__(self, clock: Clock, link: Link) -> None:
        self._clock = clock
        self._latency_s = link.latency_ms / 1000
        self._byte_s = 8e-6 / link.mbps if link.mbps else 0.0
        self._free_at = 0.0
        self.byte_count = 0

    def send(self, size: int, arrive: Call) -> None:
        """Sends `size` bytes; `arrive` is called at the other end."""
        self._free_at = max(self._clock.now, self._free_at) + size * self._byte_s
        self.byte_count += size
        self._clock.at(self._free_at + self._latency_s, arrive)


def step_bytes(items: Sequence[DraftItem]) -> int:
    """A DraftRequest with a step."""
    return REQUEST_BYTES + sum(
        ITEM_BYTES + TOKEN_BYTES * len(item.token_ids) + NODE_BYTES * len(item.tree) for item in items
    )


def candidates_bytes(guesses: Sequence[Guess]) -> int:
    """A DraftResponse."""
    return ANSWER_BYTES + sum(RESULT_BYTES + NODE_BYTES * len(guess.tree or ()) for guess in guesses)


def batch_bytes(items: Sequence[BatchItem]) -> int:
    """A VerifyRequest with a batch."""
    return REQUEST_BYTES + sum(
        ITEM_BYTES + TOKEN_BYTES * len(item.token_ids) + BARE_NODE_BYTES * len(item.tree) for item in items
    )


def verdicts_bytes(verdicts: Sequence[SessionVerdict]) -> int:
    """A VerifyResponse."""
    return ANSWER_BYTES + sum(
        RESULT_BYTES + BARE_NODE_BYTES * len(verdict.token_ids) + NODE_BYTES * len(verdict.judged_nodes)
        for verdict in verdicts
    )


def closing_bytes(session_ids: Sequence[str]) -> int:
    """A request that ends sessions."""
    return ANSWER_BYTES + sum(len(session_id) + 2 for session_id in session_ids)
