"""While nobody asks, verifiers idle: that says nothing of drafting, and nothing about it changes."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.feedback import Feedback

PAUSES_S = (0.0, 3600.0)
LEVEL = -2


def after_a_pause(pause_s: float, verifier_lost: bool) -> tuple[Feedback, float]:
    """What is known of keeping pace once one request has been verified with drafts after a pause. Where its verifier is
    lost, by the other one, which has had nothing to do since before the pause."""
    mesh = Mesh(verifiers=("v", "w"))
    feedback = mesh.scheduler._planner.offers.feedback
    for name in "ab":
        mesh.ask(name)
    mesh.run()
    feedback.level, feedback._pressure, feedback._sum = LEVEL, 0.0, 0.0
    mesh.pass_time(pause_s)
    mesh.sent.clear()
    mesh.ask("c")
    batch = with_drafts(mesh)
    if verifier_lost:
        mesh.sent.clear()
        mesh.lose_verifier(batch.verifier)
        batch = with_drafts(mesh)
    assert batch.verifier == ("w" if verifier_lost else "v")
    while mesh.answers[-1] != ev.BatchDone(batch.batch_id):
        mesh.deliver_oldest()
    while mesh.links["w" if verifier_lost else "v", "scheduler"]:
        mesh.deliver_oldest()
    return feedback, mesh.scheduler.pace.hidden_ms


def with_drafts(mesh: Mesh) -> ev.SendBatch:
    """The next batch that holds drafts."""
    while True:
        for command in mesh.sent:
            if isinstance(command, ev.SendBatch) and command.items[0].tree:
                return command
        mesh.deliver_oldest()


@pytest.mark.parametrize("verifier_lost", [False, True])
def test_a_pause_without_requests_does_not_change_drafting(verifier_lost: bool) -> None:
    (feedback, hidden_ms), (rested, rested_hidden_ms) = (after_a_pause(pause, verifier_lost) for pause in PAUSES_S)
    assert astuple(rested) == pytest.approx(astuple(feedback))
    assert rested_hidden_ms == pytest.approx(hidden_ms)


def test_a_verifier_that_takes_over_did_not_wait_for_the_drafts_it_is_brought() -> None:
    feedback, _ = after_a_pause(PAUSES_S[1], verifier_lost=True)
    assert feedback.level == LEVEL
    assert feedback._sum == pytest.approx(0.0, abs=0.1), "idling would have added up"


def test_a_verifier_that_waits_for_drafts_is_seen_to_idle() -> None:
    feedback, _ = after_a_pause(PAUSES_S[0], verifier_lost=False)
    assert feedback._sum < -0.1
