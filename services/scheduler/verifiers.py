"""A verifier as the scheduler sees it: the link to it, and the batches it may still be sent.

Its Hello names how many batches may be unanswered (`Limits.credits`). What goes beyond that waits in order for an
answer to give a credit back, and closings wait behind it: they might end a session before its batch has come. Nothing
is dropped: every batch is answered, also one that is cancelled. What a batch holds is the machine's business.
"""

from __future__ import annotations

from collections import deque

from cosine.rpc.streams import PeerLink
from cosine.v1 import types_pb2, verifier_pb2


class Verifier:
    """One connected verifier. The machine bounds what waits: it plans a batch or two ahead."""

    def __init__(self, link: PeerLink) -> None:
        assert link.peer is not None
        self.link = link
        self.peer = link.peer
        self._credits = max(1, link.peer.bounds.credits)
        self._unanswered: set[int] = set()
        self._held: deque[verifier_pb2.VerifyRequest] = deque()

    def verify(self, batch: verifier_pb2.VerifyRequest) -> None:
        """Sends a batch, now or when its turn comes."""
        self._held.append(batch)
        self._send_held()

    def cancel(self, batch_id: int) -> None:
        """Takes a batch back: at once where it has been sent, else as soon as it is."""
        request = verifier_pb2.VerifyRequest(cancel=types_pb2.CancelWork(work_ids=[batch_id]))
        places = [place for place, held in enumerate(self._held) if held.batch.batch_id == batch_id]
        if places:
            self._held.insert(places[0] + 1, request)
        else:
            self.link.send(request)

    def close(self, session_id: str) -> None:
        """A session ended; takes no credit."""
        close = types_pb2.CloseSessions(session_ids=[session_id])
        self._held.append(verifier_pb2.VerifyRequest(close=close))
        self._send_held()

    def answered(self, batch_id: int) -> None:
        """The verdicts of a batch came, and gave a credit back."""
        self._unanswered.discard(batch_id)
        self._send_held()

    def _send_held(self) -> None:
        while self._held and (not self._held[0].HasField("batch") or len(self._unanswered) < self._credits):
            request = self._held.popleft()
            if request.HasField("batch"):
                self._unanswered.add(request.batch.batch_id)
            self.link.send(request)
