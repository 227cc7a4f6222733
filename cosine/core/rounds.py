"""Requests that take one round after the other: what a tree and a verdict mean for them. Part of the scheduler.

Streamed requests, which draft on while they are verified, are `cosine.core.streaming`'s. The scheduler, as `Host`, owns
requests, seats and plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cosine.core import events as ev
from cosine.core.live import Live, Phase
from cosine.core.pace import Pace
from cosine.core.planner import Planner
from cosine.core.tree import EMPTY, TokenTree


class Host(Protocol):
    """The scheduler as requests in rounds see it."""

    def ready(self, live: Live, now: float) -> None:
        """The request waits for its verifier's next batch."""
        ...

    def draft(self, live: Live) -> bool:
        """Asks for a plan for the request; False where nobody can draft."""
        ...

    def commit(self, live: Live, token_ids: Sequence[int], logprobs: Sequence[ev.TokenLogprob]) -> bool:
        """Commits tokens; False where the request has ended with them."""
        ...


class Rounds:
    """All requests of a scheduler that take rounds."""

    def __init__(self, host: Host, planner: Planner, pace: Pace) -> None:
        self._host = host
        self._planner = planner
        self._pace = pace

    def judged(self, live: Live, verdict: ev.SessionVerdict, tree: TokenTree, forward_us: int, now: float) -> None:
        """The target has judged a tree, has read a part of the context, or has forgotten it."""
        was_round = live.started
        live.cached = 0 if verdict.missed else verdict.cached_length
        if not verdict.token_ids:
            self._host.ready(live, now)
            return
        round_ms = (now - live.round_start) * 1000 if was_round else 0.0
        if was_round:
            live.learn(verdict, tree, self._pace, round_ms)
            self._planner.offers.note_verdict(live, forward_us / 1000, len(verdict.token_ids))
        live.note_round(verdict.nodes, live.draft_ms * 1000, forward_us, round_ms)
        live.tree, live.draft_ms = EMPTY, 0.0
        if self._host.commit(live, verdict.token_ids, verdict.logprobs):
            live.cached = min(live.cached, len(live.tokens) - 1)
            self._next(live, now)

    def drafted(self, live: Live, tree: TokenTree, now: float) -> None:
        """A plan has brought a tree, or nothing."""
        self._planner.unwant(live)
        live.tree = tree
        live.draft_ms = (now - live.round_start) * 1000
        self._host.ready(live, now)

    def _next(self, live: Live, now: float) -> None:
        live.round_start = now
        if self._host.draft(live):
            live.phase = Phase.DRAFTING
        else:
            self._host.ready(live, now)
