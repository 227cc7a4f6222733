"""Whatever is lost, late or cancelled: the text is the target's own and no request is forgotten (G1, G2, G3)."""

from __future__ import annotations

import random

import pytest
from harness import DRAFTERS, FUSION, TWIN, Mesh, Text, held_sessions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import Expired, Unavailable
from cosine.core.sampling import Sampling
from cosine.core.scheduler import Scheduler
from cosine.core.strategy import PRESETS

STRATEGIES = sorted(PRESETS)
TWO = ("v1", "v2")


def ask_several(mesh: Mesh, strategy: str = "cosine", count: int = 24, temperature: float = 0.0) -> list[Text]:
    return [
        mesh.ask(f"r{number}", (number, 7, 9), count, Sampling(temperature=temperature, seed=number), strategy)
        for number in range(4)
    ]


def expect_plain(texts: list[Text]) -> None:
    for text in texts:
        assert text.error is None, text.error
        assert text.tokens == text.plain, text.admission.request_id
        assert text.finish


def expect_all_freed(mesh: Mesh) -> None:
    """Nothing is held for anybody, anywhere."""
    while mesh.deliver_oldest():
        pass
    used = {item.session_id for command in mesh.sent if isinstance(command, ev.SendBatch) for item in command.items}
    assert used
    assert mesh.scheduler.live_count == 0
    assert mesh.fusion is None or mesh.fusion.session_count == 0
    for engine in (*mesh.verifiers.values(), *mesh.drafters.values()):
        assert not held_sessions(engine, used)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_plain_text_and_frees_everything(strategy: str, temperature: float) -> None:
    mesh = Mesh(verifiers=TWO)
    texts = ask_several(mesh, strategy, temperature=temperature)
    mesh.run()
    expect_plain(texts)
    expect_all_freed(mesh)


def test_speculation_takes_fewer_rounds_than_tokens() -> None:
    mesh = Mesh()
    texts = ask_several(mesh, "specinfer")
    mesh.run()
    figures = [text.figures for text in texts]
    assert all(its is not None and its.round_count < 18 for its in figures)
    assert all(its is not None and its.accepted_token_count + its.round_count >= 24 for its in figures)


def test_a_mesh_without_fusion_decodes_plainly() -> None:
    mesh = Mesh()
    mesh.lose_fusion()
    texts = ask_several(mesh)
    mesh.run()
    expect_plain(texts)


def test_a_mesh_without_drafters_decodes_plainly_without_waiting_for_them() -> None:
    mesh = Mesh(drafters={})
    texts = ask_several(mesh)
    began = mesh.now
    mesh.run()
    expect_plain(texts)
    assert mesh.now - began < 1.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_verifier_that_stands_still_is_given_up_and_another_takes_over(strategy: str) -> None:
    mesh = Mesh(verifiers=("v1", "v2", "v3"), config=SchedulerConfig(batch_deadline_s=5.0))
    texts = ask_several(mesh, strategy)
    for _ in range(40):
        mesh.deliver_oldest()
    mesh.deaf.add("v1")
    mesh.run()
    expect_plain(texts)
    assert ev.ResetPeer("v1") in mesh.sent


@pytest.mark.parametrize("deaf", [FUSION, *DRAFTERS])
def test_a_draft_that_misses_its_deadline_is_verified_without(deaf: str) -> None:
    mesh = Mesh()
    mesh.deaf.add(deaf)
    texts = ask_several(mesh)
    mesh.run()
    expect_plain(texts)


def test_one_silent_drafter_costs_only_the_exchanges_it_was_in() -> None:
    mesh = Mesh(drafters={"good": "toy:seed=1,own=4,skill=0.9", "silent": "toy:seed=1,own=5,skill=0.9"})
    mesh.deaf.add("silent")
    text = mesh.ask("r", count=60, strategy="specinfer")
    mesh.run()
    expect_plain([text])
    assert text.figures is not None
    assert text.figures.round_count < 30, "after a few missed deadlines it rests, and the other works alone"


@pytest.mark.parametrize("after", [0, 1, 5, 20, 60])
def test_a_verifier_lost_and_back_goes_on_with_the_same_text(after: int) -> None:
    mesh = Mesh()
    texts = ask_several(mesh, temperature=1.0)
    for _ in range(after):
        mesh.deliver_oldest()
    mesh.lose_verifier("verifier")
    for _ in range(5):
        mesh.deliver_oldest()
    mesh.return_verifier("verifier")
    mesh.run()
    expect_plain(texts)
    expect_all_freed(mesh)


@pytest.mark.parametrize("after", [0, 1, 5, 20, 60])
def test_another_verifier_takes_over_from_the_tokens_alone(after: int) -> None:
    mesh = Mesh(verifiers=("v1", "v2"))
    texts = ask_several(mesh)
    for _ in range(after):
        mesh.deliver_oldest()
    mesh.lose_verifier("v1")
    mesh.run()
    expect_plain(texts)


def test_a_verifier_that_restarts_unnoticed_is_sent_the_whole_context() -> None:
    mesh = Mesh()
    texts = ask_several(mesh)
    for _ in range(30):
        mesh.deliver_oldest()
    engine = mesh.verifiers["verifier"]
    sessions = [item.session_id for command in mesh.sent if isinstance(command, ev.SendBatch) for item in command.items]
    engine.close(sessions)
    mesh.run()
    expect_plain(texts)


@pytest.mark.parametrize("after", [0, 3, 10, 40])
def test_fusion_lost_for_good_costs_speed_and_nothing_else(after: int) -> None:
    mesh = Mesh()
    texts = ask_several(mesh)
    for _ in range(after):
        mesh.deliver_oldest()
    mesh.lose_fusion()
    mesh.run()
    expect_plain(texts)


def test_fusion_lost_and_back_drafts_again() -> None:
    mesh = Mesh()
    texts = ask_several(mesh, count=40)
    for _ in range(20):
        mesh.deliver_oldest()
    mesh.lose_fusion()
    for _ in range(10):
        mesh.deliver_oldest()
    plans = sum(isinstance(command, ev.SendPlan) for command in mesh.sent)
    mesh.return_fusion()
    mesh.run()
    expect_plain(texts)
    assert sum(isinstance(command, ev.SendPlan) for command in mesh.sent) > plans


def test_a_client_that_leaves_frees_everything_at_once() -> None:
    for after in (0, 2, 6, 15, 40):
        mesh = Mesh()
        text = mesh.ask("gone", count=40)
        for _ in range(after):
            mesh.deliver_oldest()
        mesh.sent.clear()
        mesh.leave("gone")
        freed = {command.peer_id for command in mesh.sent if isinstance(command, ev.CloseSession)}
        assert "verifier" in freed
        assert after < 6 or FUSION in freed
        assert mesh.scheduler.live_count == 0
        assert text.tokens == text.plain[: len(text.tokens)]
        while mesh.deliver_oldest():
            assert not any(isinstance(command, ev.SendBatch | ev.SendPlan) for command in mesh.sent)
        assert not mesh.verifiers["verifier"]._sessions


def test_a_client_that_leaves_does_not_disturb_the_others() -> None:
    mesh = Mesh()
    texts = ask_several(mesh)
    for _ in range(12):
        mesh.deliver_oldest()
    mesh.leave("r2")
    mesh.run()
    expect_plain([text for text in texts if not text.left])
    expect_all_freed(mesh)


def test_a_gateway_that_is_gone_takes_its_requests_with_it() -> None:
    mesh = Mesh()
    ask_several(mesh)
    mesh.deliver_oldest()
    for text in mesh.texts.values():
        text.left = True
    mesh.tell(ev.GatewayDown("another"))
    assert mesh.scheduler.live_count == 4
    mesh.tell(ev.GatewayDown("gateway"))
    expect_all_freed(mesh)


def test_the_next_attempt_goes_on_where_the_gateway_stands() -> None:
    mesh = Mesh()
    texts = ask_several(mesh, temperature=1.0)
    for _ in range(25):
        mesh.deliver_oldest()
    assert any(text.tokens for text in texts)
    for text in texts:
        mesh.ask_again(text.admission.request_id)
    mesh.run()
    expect_plain(texts)
    expect_all_freed(mesh)


def test_an_older_or_equal_attempt_is_ignored() -> None:
    mesh = Mesh()
    text = mesh.ask("r")
    first = text.admission
    for _ in range(10):
        mesh.deliver_oldest()
    mesh.ask_again("r")
    sent = len(mesh.sent)
    mesh.tell(ev.RequestCame(first))
    mesh.tell(ev.RequestCame(text.admission))
    mesh.tell(ev.RequestLeft("r", first.attempt))
    assert len(mesh.sent) == sent
    mesh.run()
    expect_plain([text])


def test_a_deadline_ends_a_request_and_frees_it() -> None:
    mesh = Mesh()
    texts = ask_several(mesh)
    hasty = mesh.ask("hasty", count=400, deadline_s=0.05)
    mesh.run()
    assert isinstance(hasty.error, Expired)
    assert hasty.error.reason == "DEADLINE_EXCEEDED"  # whoever notices first: a gateway or a client says the same
    assert hasty.tokens == hasty.plain[: len(hasty.tokens)]
    assert hasty.figures is not None
    expect_plain(texts)
    expect_all_freed(mesh)


def test_without_a_verifier_a_request_fails_after_a_while_and_says_when_to_come_back() -> None:
    mesh = Mesh(verifiers=())
    text = mesh.ask("r")
    mesh.run()
    assert isinstance(text.error, Unavailable)
    assert text.error.retry_delay_ms > 0


def test_an_alarm_that_rings_to_the_tick_is_heard_whatever_the_hour() -> None:
    for hour in range(1, 400):
        scheduler, now = Scheduler(SchedulerConfig()), hour / 7
        sent = scheduler.handle(ev.RequestCame(ev.Admission("r", 1, "g", (1,), 1, 5)), now)
        (wake,) = [command.time for command in sent if isinstance(command, ev.WakeAt)]
        assert any(isinstance(command, ev.Progress) for command in scheduler.handle(ev.Tick(), wake)), now


def test_requests_without_a_seat_wait_for_one() -> None:
    mesh = Mesh(seats=1)
    texts = ask_several(mesh)
    mesh.run()
    expect_plain(texts)
    batches = [command for command in mesh.sent if isinstance(command, ev.SendBatch)]
    assert all(len(command.items) == 1 for command in batches)


def test_a_tick_that_comes_early_is_asked_for_again() -> None:
    mesh = Mesh(verifiers=())
    text = mesh.ask("r")
    mesh.wake = None
    mesh.tell(ev.Tick())
    assert mesh.wake is not None
    mesh.run()
    assert isinstance(text.error, Unavailable)


def test_late_and_repeated_answers_change_nothing() -> None:
    mesh = Mesh()
    texts = ask_several(mesh)
    while not all(text.over for text in texts):
        mesh.deliver_oldest()
        for answer in mesh.answers[-12:]:
            if not isinstance(answer, ev.PlanDone):
                mesh.tell(answer)
    mesh.run()
    expect_plain(texts)
    assert mesh.scheduler.stale_count > 0


def test_a_session_left_out_of_a_finished_batch_is_asked_for_again() -> None:
    mesh = Mesh(drafters=TWIN)
    texts = ask_several(mesh)
    mesh.deliver(("scheduler", "verifier"))
    mesh.links["verifier", "scheduler"].popleft()
    mesh.run()
    expect_plain(texts)


def play(mesh: Mesh, moves: list[int], dice: random.Random) -> None:
    """Moves of a hostile world: mostly deliveries in any order, now and then a loss, a return, a jump of the clock."""
    for move in moves:
        links = [link for link, queue in sorted(mesh.links.items()) if queue]
        if move < 75:
            for _ in range(move // 10 + 1):
                links = [link for link, queue in sorted(mesh.links.items()) if queue]
                if links:
                    mesh.deliver(dice.choice(links))
        elif move < 80:
            mesh.pass_time(dice.choice([0.01, 0.3, 3.0]))
        elif move < 84:
            name = dice.choice(["v1", "v2"])
            if name in mesh.verifiers:
                mesh.lose_verifier(name)
            else:
                mesh.return_verifier(name)
        elif move < 86:
            mesh.return_verifier(dice.choice(["v1", "v2"]))
        elif move < 89:
            if mesh.fusion is None:
                mesh.return_fusion()
            else:
                mesh.lose_fusion()
        elif move < 93:
            name = dice.choice(sorted(DRAFTERS))
            if name in mesh.drafters:
                mesh.lose_drafter(name)
            else:
                mesh.return_drafter(name)
        elif move < 96 and mesh.answers:
            mesh.tell(dice.choice(mesh.answers))
        else:
            _gateway_moves(mesh, dice)


def _gateway_moves(mesh: Mesh, dice: random.Random) -> None:
    open_ = [name for name, text in sorted(mesh.texts.items()) if not text.over]
    if not open_:
        return
    if dice.random() < 0.7:
        mesh.ask_again(dice.choice(open_))
    else:
        mesh.leave(dice.choice(open_))


@pytest.mark.timeout(600)  # a failure is worth the minutes it takes to shrink
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 99), max_size=60),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.0]),
)
def test_no_order_of_losses_delays_and_late_words_changes_a_text_or_loses_a_request(
    moves: list[int], seed: int, temperature: float
) -> None:
    mesh = Mesh(verifiers=("v1", "v2"), config=SchedulerConfig(verifier_wait_s=1e6, prefill_chunk=4))
    texts = [
        mesh.ask(f"r{number}", (number, 5, *range(number * 3)), 20, Sampling(temperature, seed=number), strategy)
        for number, strategy in enumerate(["cosine", "cosine:lookahead=6", "pipeinfer", "dsi", *STRATEGIES])
    ]
    play(mesh, moves, random.Random(seed))
    for name in ("v1", "v2"):
        if name not in mesh.verifiers:
            mesh.return_verifier(name)
    mesh.run()
    expect_plain([text for text in texts if not text.left])
    for text in texts:
        assert text.tokens == text.plain[: len(text.tokens)]
    expect_all_freed(mesh)
