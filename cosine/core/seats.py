"""All verifiers of a scheduler: who has room, which may be sent a batch now, which batch is whose, how fast each is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
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
        verify = self._seeded(facts)
        if not self.seen_count:
            self._pace.verify = verify  # one model as long as there is one verifier
        elif any(seat.verify is self._pace.verify for seat in self.by_peer.values()):
            self._pace.verify = deepcopy(self._pace.verify)
        self.by_peer[facts.peer_id] = Seat(facts, verify, sharing_count=self._sharing_count)
        self._pace.verifiers[facts.peer_id] = facts.processor
        self.seen_count = max(self.seen_count, len(self.by_peer))

    def _seeded(self, facts: ev.VerifierFacts) -> LineModel:
        """A verifier's passes as it measured them when it started; where it has not, those of all, until it shows its
        own."""
        if facts.base_ms:
            return LineModel.seeded(facts.base_ms, facts.row_ms)
        of_all = self._pace.verify
        return LineModel(of_all.base_ms, of_all.slope_ms, kilotoken_ms=of_all.kilotoken_ms)

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

    def places(self, waiting: Iterable[Live]) -> Iterator[tuple[Live, list[Seat]]]:
        """Who can sit down now, in order, each with the verifiers that take another session, the least occupied first;
        it sits down before the next is asked for.

        A verifier gets no text that it could not hold the whole of. One that is too long for all goes to those that
        hold the most: it may end before its bound.
        """
        longest = max((seat.facts.tokens_max for seat in self.by_peer.values()), default=0)
        free = self._free()
        for live in waiting:
            if not free:
                return
            need = min(longest, live.admission.prompt_length + live.admission.max_new_tokens)
            fitting = [seat for seat in free if seat.facts.tokens_max >= need]
            if fitting:
                yield live, fitting
                free = self._free()

    def _free(self) -> list[Seat]:
        free = [seat for seat in self.by_peer.values() if seat.has_room]
        return sorted(free, key=lambda seat: len(seat.sessions))

    def of(self, batch_id: int) -> Seat | None:
        """The verifier that works on a batch; None where nobody waits for it any more."""
        return next((seat for seat in self.by_peer.values() if batch_id in seat.batches), None)

    def leave(self, session_id: str, peer_id: str) -> list[ev.CancelBatch]:
        """A session gives its place up; what nobody waits for without it."""
        seat = self.by_peer.get(peer_id)
        return [] if seat is None else seat.leave(session_id)

    def learn(self, batch: Batch, took_ms: float) -> None:
        """What a batch that has been answered says of this verifier's passes, of those of all, by which is planned, and
        of how verifiers and drafting keep up."""
        own, of_all = self.by_peer[batch.peer_id].verify, self._pace.verify
        for model in (own,) if own is of_all else (own, of_all):
            model.note(batch.row_count, took_ms, batch.kilotokens)
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
            seat.take_turns(queue)
            wait_until = None if queue.streamed else self._planner.worth_waiting_until(seat, queue.rounds[0], now)
            if wait_until is not None:
                yield wait_until
                continue
            batch = seat.compose(new_id(), queue, self._bounds, self._pace, now)
            if batch is not None:
                yield batch
