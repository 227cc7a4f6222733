"""Several fusions share the requests of a scheduler: a new one goes where the fewest are, and stays there."""

from __future__ import annotations

from collections import Counter, deque

from test_scheduler_machine import Trace, verdict

from cosine.core import events as ev

PATIENCE_S = 0.1  # after so long the verifier waits for drafts no more, and they are not late yet


class Fusions(Trace):
    """A scheduler with two fusions that never answer; which of them each request drafts with is seen from the plans."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}
        self._batches: deque[ev.SendBatch] = deque()
        super().__init__(drafters=())
        for name in ("f", "g"):
            self(ev.FusionUp(name), ev.DraftersChanged(name, ("a", "b")))

    def __call__(self, *events: ev.Event) -> list[str]:
        lines = super().__call__(*events)
        self._batches.extend(command for command in self.sent if isinstance(command, ev.SendBatch))
        for plan in (command for command in self.sent if isinstance(command, ev.SendPlan)):
            self.where.update({item.session_id: plan.fusion for item in plan.plan.items})
        return lines

    def begin(self, *names: str) -> None:
        """Requests come, their prompts are read, and they draft for the first time."""
        for name in names:
            self.came(name, strategy="vanilla")
        while self._batches:
            batch = self._batches.popleft()
            ends = [item.base_length + len(item.token_ids) for item in batch.items]
            items = zip(batch.items, ends, strict=True)
            self.judged(batch.batch_id, *(verdict(item.session_id, [10], end) for item, end in items))
            self.now += PATIENCE_S
            self(ev.Tick())

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.where.values())

    @property
    def latest(self) -> str:
        """The fusion of the request that came last."""
        return self.where[max(self.where, key=lambda session_id: int(session_id.removeprefix("s-")))]


def test_requests_that_come_one_after_the_other_are_spread() -> None:
    mesh = Fusions()
    for name in "pqrs":
        mesh.begin(name)
    assert mesh.counts == {"f": 2, "g": 2}


def test_requests_that_begin_to_draft_together_are_spread() -> None:
    mesh = Fusions()
    mesh.begin(*"pqrstu")
    assert len(mesh.where) == 6
    assert abs(mesh.counts["f"] - mesh.counts["g"]) <= 1


def test_one_that_has_ended_leaves_its_place_to_the_next() -> None:
    mesh = Fusions()
    for name in "pq":
        mesh.begin(name)
    freed = mesh.where.pop("s-1")
    mesh(ev.RequestLeft("p", 1))
    mesh.begin("r")
    assert mesh.latest == freed


def test_when_one_is_lost_its_requests_go_to_the_other_and_nobody_moves_when_it_is_back() -> None:
    mesh = Fusions()
    for name in "pq":
        mesh.begin(name)
    lost = mesh.where["s-1"]
    (other,) = {"f", "g"} - {lost}
    mesh(ev.FusionDown(lost))
    mesh.begin("r")
    assert mesh.latest == other
    mesh(ev.FusionUp(lost), ev.DraftersChanged(lost, ("a", "b")))
    mesh.begin("s")
    assert mesh.latest == lost
