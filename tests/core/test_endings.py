"""A text ends where plain decoding ends it, wherever in an accepted run that is, and nothing is committed behind it."""

from __future__ import annotations

import pytest
from harness import TWIN, Mesh, plain_text

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.sampling import Sampling
from cosine.core.scheduler import Scheduler
from cosine.engine.toy import EOS_TOKEN_ID

PROMPT = (0, 7, 9)
RUN = plain_text(PROMPT, 14)


@pytest.mark.parametrize("strategy", ["cosine", "specinfer", "vanilla", "plain"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_texts_have_exactly_the_length_asked_for(count: int, strategy: str) -> None:
    mesh = Mesh(drafters=TWIN)
    text = mesh.ask("r", PROMPT, count, strategy=strategy)
    mesh.run()
    assert (text.tokens, text.finish) == (RUN[:count], "length")


def test_a_text_of_one_token_is_never_drafted_for() -> None:
    mesh = Mesh(drafters=TWIN)
    mesh.ask("r", PROMPT, 1)
    mesh.run()
    assert not any(isinstance(command, ev.SendPlan) for command in mesh.sent)


def test_no_deeper_than_the_text_is_long_is_drafted() -> None:
    mesh = Mesh(drafters=TWIN)
    mesh.ask("r", PROMPT, 4)
    mesh.run()
    depths = [item.depth for command in mesh.sent if isinstance(command, ev.SendPlan) for item in command.plan.items]
    assert depths[0] == 2, "of three tokens to come, the verifier adds one by itself"


@pytest.mark.parametrize("strategy", ["cosine", "specinfer"])
@pytest.mark.parametrize("offset", range(len(RUN)))
def test_a_stop_token_ends_the_text_at_every_offset_of_an_accepted_run(offset: int, strategy: str) -> None:
    stop = RUN[offset]
    mesh = Mesh(drafters=TWIN)
    text = mesh.ask("r", PROMPT, len(RUN), strategy=strategy, stop=[stop])
    mesh.run()
    assert text.tokens == RUN[: RUN.index(stop) + 1]
    assert text.finish == "stop_token"


def test_the_models_own_end_is_an_end_like_any_other() -> None:
    mesh = Mesh(drafters=TWIN)
    eager = Sampling(temperature=1.0, seed=3, logit_bias=((EOS_TOKEN_ID, 9.0),))
    text = mesh.ask("r", PROMPT, 100, eager, stop=[EOS_TOKEN_ID])
    mesh.run()
    assert text.finish == "stop_token"
    assert text.tokens == text.plain
    assert text.tokens.index(EOS_TOKEN_ID) == len(text.tokens) - 1


@pytest.mark.parametrize("offset", range(4))
def test_what_a_verdict_holds_behind_the_end_is_thrown_away(offset: int) -> None:
    scheduler, run = Scheduler(SchedulerConfig()), (21, 22, 23, 24)
    scheduler.handle(ev.VerifierUp(ev.VerifierFacts("v")), 0.0)
    admission = ev.Admission("r", 1, "g", PROMPT, 3, 50, stop_token_ids=frozenset({run[offset]}))
    sent = scheduler.handle(ev.RequestCame(admission), 0.0)
    (batch,) = [command for command in sent if isinstance(command, ev.SendBatch)]
    verdict = ev.SessionVerdict(batch.items[0].session_id, run, (0, 1, 2), 6)
    sent = scheduler.handle(ev.VerdictCame(batch.batch_id, verdict), 0.1)
    sent += scheduler.handle(ev.BatchDone(batch.batch_id), 0.1)
    (progress,) = [command for command in sent if isinstance(command, ev.Progress)]
    assert (progress.token_ids, progress.finish) == (run[: offset + 1], "stop_token")
    assert [type(command) for command in sent] == [ev.Progress, ev.CloseSession]
    assert scheduler.live_count == 0


def test_a_stop_token_in_the_prompt_does_not_end_the_text() -> None:
    mesh = Mesh(drafters=TWIN)
    text = mesh.ask("r", (*PROMPT, 250), 5, stop=[250])
    mesh.run()
    assert (text.finish, len(text.tokens)) == ("length", 5)


@pytest.mark.parametrize("held", [RUN[:5], RUN])
def test_a_text_that_was_over_already_is_over_at_once_when_it_is_taken_up_again(held: list[int]) -> None:
    mesh = Mesh(drafters=TWIN)
    admission = ev.Admission("r", 2, "gateway", (*PROMPT, *held), 3, len(RUN), stop_token_ids=frozenset({RUN[4]}))
    sent = mesh.scheduler.handle(ev.RequestCame(admission), mesh.now)
    finishes = [command.finish for command in sent if isinstance(command, ev.Progress) and command.finish]
    assert finishes == (["stop_token"] if len(held) == 5 else ["length"])
    assert mesh.scheduler.live_count == 0
    assert not any(isinstance(command, ev.SendBatch) for command in sent)
