"""All verifiers of a scheduler: who has room, which may be sent a batch now, which batch is whose, how fast each is;
and who looks for one, in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.planner import Planner
from cosine.core.seat import Batch, Seat
from cosine.core.timing import LineModel


@dataclass(slots=True, eq=False)
class Seeker:
    """A request that looks for a verifier, and how many that came after it have sat down meanwhile."""

    live: Live
    overtaken_count: int = 0


class Seatless:
    """Requests that look for a verifier: the highest priority sits down first, of equal ones the first to come. Whoever
    has been overtaken `overtaken_max` times comes before all others, so that one that finds n others sits down after at
    most `overtaken_max + n` of those whose places it could have had."""

    def __init__(self, overtaken_max: int) -> None:
        self._overtaken_max = overtaken_max
        self._seekers: dict[str, Seeker] = {}

    def __len__(self) -> int:
        return len(self._seekers)

    def add(self, live: Live) -> None:
        """It comes last of its priority, unless it is here."""
        self._seekers.setdefault(live.session_id, Seeker(live))

    def discard(self, live: Live) -> None:
        """It looks for no verifier any more, if it did."""
        self._seekers.pop(live.session_id, None)

    def sit(self, live: Live) -> None:
        """It has found a verifier; whoever came before it has been overtaken."""
        for seeker in self._seekers.values():
            if seeker.live is live:
                break
            seeker.overtaken_count += 1
        self.discard(live)

    def in_turn(self) -> list[Live]:
        """Who sits down first, and who next."""
        return [seeker.live for seeker in sorted(self._seekers.values(), key=self._rank)]

    def _rank(self, seeker: Seeker) -> float:
        overdue = seeker.overtaken_count >= self._overtaken_max
        return -math.inf if overdue else -seeker.live.admission.priority


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
        self._note_processors()
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
        gone = self.by_peer.pop(peer_id, None)
        self._note_processors()
        return gone is not None

    def _note_processors(self) -> None:
        self._pace.note_verifiers({peer_id: seat.facts.processor for peer_id, seat in self.by_peer.items()})

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

    def places(self, seatless: Seatless) -> Iterator[tuple[Live, list[Seat]]]:
        """Who can sit down now, in order, each with the verifiers that take another session, the least occupied first;
        it is seatless no more, and sits down before the next is asked for.

        A verifier gets no text that it could not hold the whole of. One that is too long for all goes to those that
        hold the most: it may end before its bound.
        """
        longest = max((seat.facts.tokens_max for seat in self.by_peer.values()), default=0)
        while seatless and (free := self._free()):
            for live in seatless.in_turn():
                need = min(longest, live.admission.prompt_length + live.admission.max_new_tokens)
                fitting = [seat for seat in free if seat.facts.tokens_max >= need]
                if fitting:
                    seatless.sit(live)
                    yield live, fitting
                    break
            else:
                return

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
