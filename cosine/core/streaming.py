"""Requests whose stretches stream to their targets: what each event means for them. Part of the scheduler.

Decides with `Stream` what to send, draft and give up; the scheduler, as `Host`, owns requests, seats and plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from cosine.core import events as ev
from cosine.core.live import Live, Phase
from cosine.core.plan import DraftedTree
from cosine.core.seat import Batch, Seat
from cosine.core.stream import Stream, Stretch
from cosine.core.tree import EMPTY


class Host(Protocol):
    """The scheduler as streamed requests see it."""

    @property
    def seats(self) -> Mapping[str, Seat]:
        """All verifiers."""
        ...

    def say(self, command: ev.Command) -> None:
        """Wants something done."""
        ...

    def draft(self, live: Live) -> bool:
        """Asks for a plan for the request; False where nobody can draft."""
        ...

    def undraft(self, live: Live) -> None:
        """Whatever is drafted for the request at this moment is worthless."""
        ...

    def commit(self, live: Live, token_ids: Sequence[int], logprobs: Sequence[ev.TokenLogprob]) -> bool:
        """Commits tokens; False where the request has ended with them."""
        ...


def is_streamed(live: Live) -> bool:
    """True for requests of strategies that let several stretches be verified at once."""
    return live.strategy.runs > 1


class Streams:
    """All streamed requests of a scheduler."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def seat(self, live: Live, seats: Iterable[Seat]) -> None:
        """The request gets its targets: the least occupied ones with room, as many as its strategy wants."""
        strategy = live.strategy
        chosen = sorted(seats, key=lambda seat: len(seat.sessions))[: strategy.verifiers]
        stream = Stream(strategy.runs, max(1, strategy.runs // strategy.verifiers), strategy.value_min)
        stream.peer_ids = [seat.peer_id for seat in chosen]
        for seat in chosen:
            seat.sessions[live.session_id] = live
        live.stream, live.verifier, live.phase = stream, chosen[0].peer_id, Phase.STREAMING

    def pump(self, live: Live) -> None:
        """Lets the request have sent and drafted what it can have now."""
        stream = live.stream
        assert stream is not None
        for peer_id in stream.peer_ids:
            seat = self._host.seats.get(peer_id)
            if seat is not None and stream.may_send(peer_id, len(live.tokens)):
                seat.ready[live.session_id] = live
        if stream.wants_draft(len(live.tokens), live.left):
            stream.drafting_from = len(live.sequence)
            if not self._host.draft(live):
                stream.drafting_from = 0

    def drafted(self, live: Live, drafted: DraftedTree | None) -> None:
        """A plan has brought a chain, or (None) nothing."""
        stream = live.stream
        assert stream is not None
        live.round_id = 0
        fits = drafted is not None and drafted.base_length == stream.drafting_from
        if stream.drafting_from:
            stream.drafted(drafted.tree if fits and drafted is not None else EMPTY, live.tokens)
        self.pump(live)

    def judged(self, live: Live, batch: Batch, verdict: ev.SessionVerdict, forward_us: int, now: float) -> None:
        """A target has judged a stretch, or has read a part of the context."""
        stream, stretch = live.stream, batch.stretches[live.session_id]
        assert stream is not None
        if stretch is None:
            stream.read(batch.peer_id, verdict.cached_length)
            self.pump(live)
            return
        taken = stream.judged(stretch, verdict, live.tokens)
        for _, word in taken.verdicts:
            round_ms = (now - live.round_start) * 1000 if live.round_start else 0.0
            live.note_round(word.nodes, 0.0, forward_us, round_ms)
            live.round_start = now
        if taken.diverged:
            self._diverge(live, taken.token_ids)
        if taken.token_ids and not self._host.commit(live, taken.token_ids, taken.logprobs):
            return
        self._cancel(taken.given_up)
        self.pump(live)

    def left_out(self, live: Live, batch: Batch) -> None:
        """A batch is done; whoever has had no answer goes on without."""
        stream, stretch = live.stream, batch.stretches[live.session_id]
        assert stream is not None
        if live.session_id in batch.answered:
            return
        if stretch is None:
            stream.prefilling.pop(batch.peer_id, None)
        elif stretch in stream.stretches:
            self._cancel(stream.give_up(stretch))
        stream.held[batch.peer_id] = 0
        self.pump(live)

    def lose(self, live: Live, peer_id: str) -> bool:
        """A target is gone; False where it was the request's last."""
        stream = live.stream
        assert stream is not None
        self._cancel(stream.lose(peer_id))
        if not stream.peer_ids:
            live.stream, live.planned = None, min(live.planned, len(live.tokens))
            return False
        live.verifier = stream.peer_ids[0]
        self.pump(live)
        return True

    def end(self, live: Live) -> None:
        """The request is over: what is at its targets is worthless, and their caches are free."""
        stream = live.stream
        assert stream is not None
        stream.give_up(None)
        for peer_id in stream.peer_ids:
            seat = self._host.seats.get(peer_id)
            for command in [] if seat is None else seat.leave(live.session_id):
                self._host.say(command)
            if peer_id != live.verifier:
                self._host.say(ev.CloseSession(peer_id, live.session_id))

    def _diverge(self, live: Live, token_ids: Sequence[int]) -> None:
        """Fusion goes on from the last token that was drafted right."""
        live.planned = min(live.planned, len(live.tokens) + len(token_ids) - 1)
        self._host.undraft(live)

    def _cancel(self, given_up: Iterable[Stretch]) -> None:
        """Batches in which nobody waits for anything any more are cancelled."""
        for peer_id in dict.fromkeys(stretch.peer_id for stretch in given_up):
            seat = self._host.seats.get(peer_id)
            for command in [] if seat is None else seat.take_back():
                self._host.say(command)
