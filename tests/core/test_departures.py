"""What is at a verifier for clients that have left is taken back, and nothing that somebody still waits for."""

from __future__ import annotations

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.strategy import PRESETS

TWO = ("v1", "v2")
IN_ROUNDS = sorted(name for name, row in PRESETS.items() if row.runs == 1)
STREAMED = sorted(name for name, row in PRESETS.items() if row.runs > 1)


def under_way(mesh: Mesh) -> list[int]:
    """Batches that verifiers have not answered."""
    return [batch_id for seat in mesh.scheduler.seats.values() for batch_id in seat.batches]


def taken_back(mesh: Mesh) -> list[int]:
    return [command.batch_id for command in mesh.sent if isinstance(command, ev.CancelBatch)]


def deliver_everything(mesh: Mesh) -> None:
    while mesh.deliver_oldest():
        pass


def with_a_batch_out(mesh: Mesh, session_count: int) -> None:
    """Goes on until so many sessions are in a batch that has not reached its verifier."""
    for _ in range(1000):
        waits = any(mesh.links.get(("scheduler", name)) for name in mesh.verifiers)
        batches = [batch for seat in mesh.scheduler.seats.values() for batch in seat.batches.values()]
        if waits and any(len(batch.members) == session_count and not batch.answered for batch in batches):
            return
        assert mesh.deliver_oldest()
    raise AssertionError("there never is such a batch")


@pytest.mark.parametrize("strategy", IN_ROUNDS)
@pytest.mark.parametrize("after", [0, 5, 30])
def test_the_batch_of_a_client_that_leaves_is_taken_back_before_its_session_is_closed(
    strategy: str, after: int
) -> None:
    mesh = Mesh()
    text = mesh.ask("gone", count=200, strategy=strategy)
    for _ in range(after):
        mesh.deliver_oldest()
    with_a_batch_out(mesh, 1)
    (batch_id,) = under_way(mesh)
    mesh.sent.clear()
    mesh.leave("gone")
    first, *rest = [command for command in mesh.sent if isinstance(command, ev.CancelBatch | ev.CloseSession)]
    assert first == ev.CancelBatch("verifier", batch_id)
    assert all(isinstance(command, ev.CloseSession) for command in rest)
    deliver_everything(mesh)
    assert not under_way(mesh), "a verifier answers all the same"
    assert not mesh.verifiers["verifier"]._sessions
    assert text.tokens == text.plain[: len(text.tokens)]


@pytest.mark.parametrize("strategy", STREAMED)
@pytest.mark.parametrize("after", [0, 9, 30])
def test_all_that_is_at_verifiers_for_a_streamed_request_is_taken_back_with_it(strategy: str, after: int) -> None:
    mesh = Mesh(verifiers=TWO)
    mesh.ask("gone", count=200, strategy=strategy)
    for _ in range(after):
        mesh.deliver_oldest()
    with_a_batch_out(mesh, 1)
    out = [batch.batch_id for seat in mesh.scheduler.seats.values() for batch in seat.batches.values()]
    mesh.leave("gone")
    assert sorted(taken_back(mesh)) == sorted({*taken_back(mesh), *out}), "each of them, and each once"
    deliver_everything(mesh)
    assert not under_way(mesh)
    assert not any(engine._sessions for engine in mesh.verifiers.values())


@pytest.mark.parametrize("strategy", ["plain", "cosine", "pipeinfer"])
def test_a_batch_is_taken_back_with_the_last_who_waits_for_it_and_not_before(strategy: str) -> None:
    mesh = Mesh()
    for name in "abc":
        mesh.ask(name, count=200, strategy=strategy)
    with_a_batch_out(mesh, 3)
    mesh.sent.clear()
    (batch_id,) = under_way(mesh)
    for name in "ab":
        mesh.leave(name)
        assert not taken_back(mesh)
    mesh.leave("c")
    assert taken_back(mesh) == [batch_id]


@pytest.mark.parametrize("strategy", IN_ROUNDS)
def test_what_ends_with_its_verdict_is_not_taken_back_and_teaches_its_time(strategy: str) -> None:
    mesh = Mesh()
    texts = [mesh.ask(f"r{number}", (number, 7), 1, strategy=strategy) for number in range(3)]
    before = mesh.scheduler.seats["verifier"].verify.predict(8)
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    assert not taken_back(mesh)
    assert mesh.scheduler.seats["verifier"].verify.predict(8) != before


def test_what_was_taken_back_teaches_no_time() -> None:
    mesh = Mesh()
    mesh.ask("gone", count=200)
    with_a_batch_out(mesh, 1)
    before = mesh.scheduler.seats["verifier"].verify.predict(8)
    mesh.leave("gone")
    deliver_everything(mesh)
    assert mesh.scheduler.seats["verifier"].verify.predict(8) == before
