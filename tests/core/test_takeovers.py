"""The same request id again: the later attempt goes on, and whoever had the older one is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import Mesh, Text
from test_scheduler_machine import Trace

from cosine.core import events as ev
from cosine.core.errors import Cancelled


def came_again(text: Text, attempt: int, gateway: str, strategy: str = "plain") -> ev.RequestCame:
    return ev.RequestCame(replace(text.admission, attempt=attempt, gateway=gateway, strategy=strategy))


def words(sent: list[ev.Command]) -> list[tuple[str, int, str]]:
    """Gateway, attempt and reason of all errors."""
    told = (command for command in sent if isinstance(command, ev.Progress))
    return [(its.gateway, its.attempt, its.error.reason) for its in told if its.error is not None]


def test_the_gateway_that_had_the_older_one_is_told_that_it_was_taken_over() -> None:
    mesh = Mesh()
    text = mesh.ask("same", count=24)
    for _ in range(6):
        mesh.deliver_oldest()
    sent = mesh.scheduler.handle(came_again(text, 2, "another gateway"), mesh.now)
    (error,) = [its.error for its in sent if isinstance(its, ev.Progress) and its.error is not None]
    assert isinstance(error, Cancelled)
    assert words(sent) == [("gateway", 1, "TAKEN_OVER")]
    assert mesh.scheduler.live_count == 1


def test_a_request_that_is_refused_takes_nothing_over() -> None:
    mesh = Mesh()
    text = mesh.ask("same", count=24)
    sent = mesh.scheduler.handle(came_again(text, 2, "another gateway", "cosine:drafter_count=64"), mesh.now)
    assert words(sent) == [("another gateway", 2, "TOO_FEW_DRAFTERS")]
    mesh.run()
    assert text.tokens == text.plain


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_that_is_not_later_changes_nothing(attempt: int) -> None:
    trace = Trace()
    admission = ev.Admission("r", 2, "g", (1, 2, 3), 3, 20, strategy="plain")
    trace(ev.RequestCame(admission))
    assert trace(ev.RequestCame(replace(admission, attempt=attempt, gateway="another"))) == []
