"""All verifiers of a scheduler: who has room, which may be sent a batch now, and which batch is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.pace import Pace
from cosine.core.planner import Planner
from cosine.core.seat import Batch, Seat
from cosine.core.timing import LineModel


class Seats:
    """Verifiers by peer id; `seen_count` is how many there ever were at once."""

    def __init__(self, bounds: SchedulerConfig, pace: Pace, planner: Planner) -> None:
        self.by_peer: dict[str, Seat] = {}
        self.seen_count = 0
        self._sharing_count = 1
        self._bounds = bounds
        self._pace = pace
        self._planner = planner

    def __contains__(self, peer_id: str) -> bool:
        return peer_id in self.by_peer

    def up(self, facts: ev.VerifierFacts) -> None:
        """A verifier came, with empty caches."""
        if facts.base_ms and not self.seen_count:
            self._pace.verify = LineModel.seeded(facts.base_ms, facts.row_ms)
        self.by_peer[facts.peer_id] = Seat(facts, sharing_count=self._sharing_count)
        self._pace.verifiers[facts.peer_id] = facts.processor
        self.seen_count = max(self.seen_count, len(self.by_peer))

    def down(self, peer_id: str) -> bool:
        """A verifier is gone; False where it was gone already."""
        self._pace.verifiers.pop(peer_id, None)
        return self.by_peer.pop(peer_id, None) is not None

    def share(self, scheduler_count: int) -> None:
        """So many schedulers use the verifiers, which know nothing of one another: each keeps to its share, or they
        would drive one another's sessions out of the caches."""
        self._sharing_count = max(1, scheduler_count)
        for seat in self.by_peer.values():
            seat.sharing_count = self._sharing_count

    @property
    def held_max(self) -> int:
        """How many requests are worth holding: those without a place are left to other schedulers, if there are any."""
        if self._sharing_count == 1 or not self.by_peer:
            return self._bounds.live_max
        return min(self._bounds.live_max, sum(seat.share for seat in self.by_peer.values()))

    def roomy(self) -> list[Seat]:
        """Verifiers that take another session, the least occupied first."""
        free = [seat for seat in self.by_peer.values() if seat.has_room]
        return sorted(free, key=lambda seat: len(seat.sessions))

    def of(self, batch_id: int) -> Seat | None:
        """The verifier that works on a batch; None where nobody waits for it any more."""
        return next((seat for seat in self.by_peer.values() if batch_id in seat.batches), None)

    def leave(self, session_id: str, peer_id: str) -> None:
        """A session gives its place up."""
        seat = self.by_peer.get(peer_id)
        if seat is not None:
            seat.ready.pop(session_id, None)
            seat.sessions.pop(session_id, None)

    def learn(self, batch: Batch, took_ms: float) -> None:
        """What a batch that has been answered says of the verifier's pace, and of how it and drafting keep up."""
        self._pace.verify.note(batch.row_count, took_ms, batch.kilotokens)
        if batch.drafted:
            self._pace.note_batch(batch.draft_ms, batch.idle_ms, batch.waiting_ms)
            self._pace.note_rows(batch.node_count, batch.step_count)
            self._planner.offers.feedback.note(batch.idle_ms, batch.waiting_ms, took_ms)

    def compose(self, new_id: Callable[[], int], now: float) -> Iterator[Batch | float]:
        """Batches that should go out now, idle verifiers' first; a time where one should wait for drafts until then."""
        for seat in sorted(self.by_peer.values(), key=lambda seat: len(seat.batches)):
            queue = seat.queue
            if not any(queue):
                continue
            seat.take_turns(queue, self._pace)
            wait_until = None if queue.streamed else self._planner.worth_waiting_until(seat, queue.rounds[0], now)
            if wait_until is not None:
                yield wait_until
                continue
            batch = seat.compose(new_id(), queue, self._bounds, self._pace, now)
            if batch is not None:
                yield batch
