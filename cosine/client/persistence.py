"""Whether a call that failed is worth another try, and when: the policy alone, without clock or dice.

A generation may be tried again at any point, because it is resumed with the tokens received and its seed; what was
received resets the count. A refusal at the door is counted apart: it says itself when to come back.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosine.core.errors import Cancelled, Full, MeshError, Unavailable

TRANSPORT = ("INTERNAL", "UNKNOWN")  # reasons of a broken stream, when no peer has said more


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`tries_max` failures in a row and `full_tries_max` refusals are borne; delays in seconds, doubled each time."""

    tries_max: int = 8
    full_tries_max: int = 20
    first_delay_s: float = 0.05
    last_delay_s: float = 2.0


class Persistence:
    """The failures of one call so far."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._refusals = 0

    def progressed(self) -> None:
        """Something was received: earlier failures no longer count."""
        self._failures = 0
        self._refusals = 0

    def delay_after(self, error: MeshError, dice: float) -> float:
        """Seconds to wait before the next try. Raises the error where there shall be none. `dice` in [0, 1)."""
        policy = self._policy
        if isinstance(error, Full):
            self._refusals += 1
            if self._refusals > policy.full_tries_max:
                raise error
            return max(error.retry_delay_ms / 1000, policy.first_delay_s) * (1 + dice)
        self._failures += 1
        if not transient(error) or self._failures > policy.tries_max:
            raise error
        delay = min(policy.first_delay_s * 2.0 ** (self._failures - 1), policy.last_delay_s)
        return max(delay * (0.5 + dice), error.retry_delay_ms / 1000)


def transient(error: MeshError) -> bool:
    """True where the next try may succeed: a peer is away, or the connection broke, or gRPC shed load."""
    if isinstance(error, Cancelled):
        return error.reason == "CANCELLED"  # by a proxy or an overloaded server; we do not read what we cancelled
    return isinstance(error, Unavailable) or (error.reason in TRANSPORT and not error.details)
