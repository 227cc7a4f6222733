"""One running request as the schedulers see it: which attempt counts, what has arrived, whether its scheduler is lost.

Bounded by the request itself: at most `max_new_tokens` tokens are kept, however slowly the client reads. Progress of an
older attempt, or tokens that came before, change nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cosine.core.errors import MeshError, Unavailable
from cosine.rpc.errors import from_failure
from cosine.rpc.streams import PeerLink
from cosine.v1 import types_pb2 as types
from cosine.v1.scheduler_pb2 import RequestProgress


@dataclass(slots=True)
class Delta:
    """What has arrived since the last look. `logprobs` is empty or as long as `token_ids`."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[types.TokenLogprobs] = field(default_factory=list)
    finish: types.FinishReason = types.FINISH_REASON_UNSPECIFIED


class SchedulerLost(Unavailable):
    """The scheduler that had a request is gone, or has lost its thread: another one can go on."""


class Running:
    """The inbox of one request; written by the relay, read by the one generation that owns it."""

    def __init__(self, request_id: str, emitted: tuple[int, ...], new_tokens_max: int) -> None:
        self.request_id = request_id
        self.attempt = 0
        self.scheduler: PeerLink | None = None
        self.output: list[int] = list(emitted)
        self.figures: types.SpeculationFigures | None = None
        self.changed = asyncio.Event()
        self._new_tokens_max = new_tokens_max
        self._fresh = Delta()
        self._trouble: MeshError | None = None

    def start(self, attempt: int) -> None:
        """From now on only this attempt counts; no scheduler has taken it yet.

        Raises what ended the request for good meanwhile, such as a take-over by another call.
        """
        if self._trouble is not None and not isinstance(self._trouble, SchedulerLost):
            raise self._trouble
        self.attempt = attempt
        self.scheduler = None
        self._trouble = None

    def on_progress(self, link: PeerLink, progress: RequestProgress) -> None:
        """Progress of the current attempt."""
        self.scheduler = link
        known = len(self.output) - progress.offset
        if known < 0:
            self.on_lost(f"tokens {len(self.output)}..{progress.offset - 1} never came")
            return
        room = max(0, self._new_tokens_max - len(self.output))
        fresh = progress.token_ids[known:][:room]
        self.output.extend(fresh)
        self._fresh.token_ids.extend(fresh)
        self._fresh.logprobs.extend(progress.logprobs[known:][:room])
        if progress.HasField("figures"):
            self.figures = progress.figures
        if progress.HasField("error"):
            self._trouble = from_failure(progress.error)
        elif progress.finish_reason != types.FINISH_REASON_UNSPECIFIED:
            self._fresh.finish = progress.finish_reason
        self.changed.set()

    def on_lost(self, reason: str) -> None:
        """The scheduler that had the request is gone; no news where the request has ended."""
        if not self._fresh.finish and self._trouble is None:
            self.fail(SchedulerLost("SCHEDULER_LOST", reason))

    def fail(self, error: MeshError) -> None:
        """Tells the generation, after what has arrived."""
        self._trouble = error
        self.changed.set()

    def take(self) -> Delta:
        """What has arrived. Raises the request's trouble where nothing is left before it."""
        self.changed.clear()
        if self._trouble is not None and not self._fresh.token_ids and not self._fresh.finish:
            raise self._trouble
        if self._trouble is not None:
            self.changed.set()
        fresh, self._fresh = self._fresh, Delta()
        return fresh
