"""A fusion as the scheduler sees it: the link to it, and the plans it may still be sent.

Its Hello names how many plans may be unanswered (`Limits.credits`). Plans beyond that wait for an answer to give a
credit back, until their deadline: nobody waits for their trees then. What a plan says is the machine's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cosine.rpc.streams import PeerLink
from cosine.v1 import fusion_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class _Held:
    plan: fusion_pb2.DraftPlan
    deadline: float


class Fusion:
    """One connected fusion. `clock` tells seconds. At most one plan per session waits."""

    def __init__(self, link: PeerLink, clock: Callable[[], float]) -> None:
        assert link.peer is not None
        self.link = link
        self._clock = clock
        self._credits = max(1, link.peer.bounds.credits)
        self._unanswered: set[int] = set()
        self._held: deque[_Held] = deque()

    @property
    def held_count(self) -> int:
        """Plans that wait for a credit."""
        return len(self._held)

    def plan(self, plan: fusion_pb2.DraftPlan) -> None:
        """Sends a plan, now or when its turn comes; what waits for its sessions is outdated."""
        for item in plan.items:
            older = self._withdraw(item.session_id)
            if older is not None:
                _append_before(item, older)
        self._held.append(_Held(plan, self._clock() + plan.deadline_ms / 1000))
        self._send_held()

    def answered(self, round_id: int) -> None:
        """The trees of a plan came, and gave a credit back."""
        self._unanswered.discard(round_id)
        self._send_held()

    def close(self, session_id: str) -> None:
        """A session ended; takes no credit."""
        self._withdraw(session_id)
        close = types_pb2.CloseSessions(session_ids=[session_id])
        self.link.send(fusion_pb2.FuseRequest(close=close))

    def _send_held(self) -> None:
        while self._held and len(self._unanswered) < self._credits:
            held = self._held.popleft()
            left_s = held.deadline - self._clock()
            if left_s >= 0.0:
                held.plan.deadline_ms = round(left_s * 1000)
                self._unanswered.add(held.plan.round_id)
                self.link.send(fusion_pb2.FuseRequest(plan=held.plan))

    def _withdraw(self, session_id: str) -> fusion_pb2.PlanItem | None:
        """Takes a session out of the plan that waits with it; a plan for nobody else is dropped."""
        for position, held in enumerate(self._held):
            for index, item in enumerate(held.plan.items):
                if item.session_id == session_id:
                    del held.plan.items[index]
                    if not held.plan.items:
                        del self._held[position]
                    return item
        return None


def _append_before(item: fusion_pb2.PlanItem, older: fusion_pb2.PlanItem) -> None:
    """Lets an item say as well what an older one of its session would have said, had it been sent."""
    kept = item.base_length - older.base_length
    if kept > 0:
        told = [*older.append_token_ids[:kept], *item.append_token_ids]
        del item.append_token_ids[:]
        item.append_token_ids.extend(told)
        item.base_length = older.base_length
