"""A verifier that drains: the scheduler takes its last answer and goes on with the others, from the tokens alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from kept_messages import Link

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.rpc.hello import Bounds, Identity
from cosine.v1 import scheduler_pb2, verifier_pb2
from services.scheduler.service import SchedulerServicer, VerifierLinks

VERIFIER = Identity("verifier", "first", 2, model_id="m", vocab_size=257, bounds=Bounds(sessions_max=8))
OTHER = replace(VERIFIER, peer_id="second", incarnation=3)
PROMPT = (1, 2, 3)


class Shell:
    """A scheduler whose verifiers and gateway are objects."""

    def __init__(self) -> None:
        self.core = Scheduler(SchedulerConfig())
        self.servicer = SchedulerServicer(Identity("scheduler", "s", 3), self.core, cast(Any, None))
        self.owner = VerifierLinks(self.servicer)
        self.gateway = Link(Identity("gateway", "g", 1, model_id="m", vocab_size=257))
        self.servicer.attach(self.gateway.peer, cast(Any, self.gateway))

    def comes(self, peer: Identity) -> Any:
        link = Link(peer)
        self.owner.on_up(cast(Any, link), peer)
        return link

    def request(self, name: str) -> None:
        self.servicer.handle(ev.RequestCame(ev.Admission(name, 1, "g", PROMPT, 3, 100, strategy="plain")))

    def judges(self, link: Any) -> None:
        """A verifier answers its last batch with one token per session."""
        batch = link.batches[-1]
        verdicts = [
            verifier_pb2.Verdict(session_id=item.session_id, committed_token_ids=[7], cached_length=3)
            for item in batch.items
        ]
        answer = verifier_pb2.VerdictBatch(batch_id=batch.batch_id, verdicts=verdicts)
        self.owner.on_message(link, verifier_pb2.VerifyResponse(verdicts=answer))

    @property
    def told(self) -> list[int]:
        """Tokens the gateway has been told."""
        messages: list[scheduler_pb2.AttachResponse] = self.gateway.sent
        return [token for message in messages for token in message.progress.token_ids]


@pytest.fixture
async def shell() -> Shell:
    return Shell()


async def test_its_last_answer_counts_and_its_requests_go_on_elsewhere_with_it(shell: Shell) -> None:
    first = shell.comes(VERIFIER)
    shell.request("a")
    second = shell.comes(OTHER)
    shell.owner.on_draining(first)
    assert len(first.batches) == 1
    assert not second.batches
    shell.judges(first)
    assert shell.told == [7]
    assert len(first.batches) == 1, "it is sent nothing new"
    ((item,),) = [batch.items for batch in second.batches]
    assert (item.base_length, list(item.append_token_ids)) == (0, [*PROMPT, 7])
    shell.judges(second)
    assert shell.told == [7, 7]
    assert shell.core.stale_count == 0


async def test_one_that_owes_no_answer_is_gone_at_once(shell: Shell) -> None:
    first, second = shell.comes(VERIFIER), shell.comes(OTHER)
    shell.owner.on_draining(first)
    assert set(shell.core.seats) == {"second"}
    for name in "ab":
        shell.request(name)
    assert not first.batches
    assert len(second.batches) == 1


async def test_the_loss_of_its_link_before_the_answer_is_a_loss_like_any_other(shell: Shell) -> None:
    first, second = shell.comes(VERIFIER), shell.comes(OTHER)
    shell.request("a")
    (busy, idle) = (first, second) if first.batches else (second, first)
    shell.owner.on_draining(busy)
    shell.owner.on_down(busy, "gone")
    assert len(idle.batches) == 1
    again = shell.comes(busy.peer)
    shell.judges(idle)
    assert set(shell.core.seats) == {"first", "second"}
    assert not again.batches, "the request stays where it is"
