"""A drafter as fusion sees it: the link to it, and the steps it may still be sent.

Its Hello names how many steps may be unanswered (`Limits.credits`). Steps beyond that wait for an answer to give a
credit back, as long as somebody waits for them: a drafter that stands still costs rounds their deadline, and finds no
broken promise when it goes on. What a step is for is the core's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from cosine.core.plan import Step
from cosine.rpc.streams import PeerLink
from cosine.v1 import drafter_pb2, types_pb2

WAITING_MAX = 256

Encode = Callable[[Step], drafter_pb2.DraftRequest]


class Drafter:
    """One connected drafter; `encode` makes the message of a step when it is sent. Of steps that wait the oldest is
    dropped past a bound: its round goes without. One that `is_draining` is not for new plans."""

    def __init__(self, link: PeerLink, encode: Encode) -> None:
        assert link.peer is not None
        self.link = link
        self.peer = link.peer
        self.is_draining = False
        self._encode = encode
        self._credits = max(1, link.peer.bounds.credits)
        self._unanswered: set[int] = set()
        self._waiting: deque[Step] = deque(maxlen=WAITING_MAX)
        self._ended: set[str] = set()  # not told yet: steps that wait name them

    def ask(self, step: Step) -> bool:
        """Sends a step, now or when its turn comes; False where the link is down."""
        self._ended.difference_update(item.session_id for item in step.items)
        self._waiting.append(step)
        return self._send_waiting()

    def answered(self, step_id: int) -> None:
        """An answer came, and gave a credit back."""
        self._unanswered.discard(step_id)
        self._send_waiting()

    def end_round(self, round_id: int) -> None:
        """Nobody waits any more for what the round has asked so far."""
        self._keep_waiting(step for step in self._waiting if step.round_id != round_id)

    def cancel(self, step_ids: Iterable[int]) -> None:
        """Nobody waits for these steps; those that were sent are still answered."""
        gone = set(step_ids)
        self._keep_waiting(step for step in self._waiting if step.step_id not in gone)
        if sent := sorted(gone & self._unanswered):
            self.link.send(drafter_pb2.DraftRequest(cancel=types_pb2.CancelWork(work_ids=sent)))

    def close(self, session_ids: Iterable[str]) -> None:
        """Sessions ended; takes no credit. The drafter hears of one behind the last step that waits and names it, which
        would open it again."""
        self._ended.update(session_ids)
        self._tell_ended()

    def _send_waiting(self) -> bool:
        while self._waiting and len(self._unanswered) < self._credits:
            step = self._waiting.popleft()
            self._unanswered.add(step.step_id)
            if not self.link.send(self._encode(step)):
                return False
        self._tell_ended()
        return True

    def _keep_waiting(self, steps: Iterable[Step]) -> None:
        self._waiting = deque(steps, maxlen=WAITING_MAX)
        self._tell_ended()

    def _tell_ended(self) -> None:
        if not self._ended:
            return
        ended = sorted(self._ended.difference(item.session_id for step in self._waiting for item in step.items))
        if ended:
            self._ended.difference_update(ended)
            self.link.send(drafter_pb2.DraftRequest(close=types_pb2.CloseSessions(session_ids=ended)))
