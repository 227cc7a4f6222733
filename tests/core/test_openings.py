"""Drafters read a prompt and begin while its verifier reads it, so that the first verdict finds a head start."""

from __future__ import annotations

import pytest
from harness import Mesh

from cosine.core import events as ev

AHEAD = "cosine:lookahead=8"
PROMPT = tuple(range(3, 40))


def plans(mesh: Mesh) -> list[ev.SendPlan]:
    return [command for command in mesh.sent if isinstance(command, ev.SendPlan)]


def batches(mesh: Mesh) -> list[ev.SendBatch]:
    return [command for command in mesh.sent if isinstance(command, ev.SendBatch)]


def opened(strategy: str = AHEAD, count: int = 24) -> Mesh:
    """A mesh that has just been asked, before anything has arrived anywhere."""
    mesh = Mesh()
    mesh.sent.clear()
    mesh.ask("r", PROMPT, count, strategy=strategy)
    return mesh


def test_a_request_that_sits_down_is_drafted_for_before_its_verifier_has_read_it() -> None:
    mesh = opened()
    (opening,) = plans(mesh)
    (item,) = opening.plan.items
    assert (item.base_length, item.token_ids) == (0, PROMPT)
    assert opening.plan.lookahead == 8
    (batch,) = batches(mesh)
    assert batch.items[0].token_ids == PROMPT, "its verifier waits for nobody"


def test_the_next_plan_says_what_the_first_verdict_committed_and_starts_from_what_is_there() -> None:
    mesh = opened()
    mesh.run()
    first, second = plans(mesh)[:2]
    (item,) = second.plan.items
    assert item.base_length == len(PROMPT)
    assert 0 < len(item.token_ids) < 8
    trees = [answer.tree for answer in mesh.answers if isinstance(answer, ev.TreeCame)]
    assert len(trees[0].tree) == 0
    assert trees[1].kept_depth > 0
    assert first.plan.round_id != second.plan.round_id


def test_the_text_is_the_same_and_nothing_counts_as_stale() -> None:
    mesh = opened(count=40)
    for number in range(3):
        mesh.ask(f"r{number}", PROMPT[number:], 40, strategy=AHEAD)
    mesh.run()
    assert all(text.tokens == text.plain for text in mesh.texts.values())
    assert mesh.scheduler.stale_count == 0
    assert mesh.fusion is not None
    assert mesh.fusion.stale_count == 0


def test_requests_that_sit_down_together_open_together() -> None:
    mesh = Mesh(verifiers=())
    for name in "abc":
        mesh.ask(name, PROMPT, strategy=AHEAD)
    mesh.sent.clear()
    mesh.return_verifier("verifier")
    (opening,) = plans(mesh)
    assert len(opening.plan.items) == 3


@pytest.mark.parametrize("strategy", ["plain", "vanilla", "pipeinfer", "cosine:lookahead=0"])
def test_who_does_not_draft_while_the_verifier_works_opens_with_nothing(strategy: str) -> None:
    mesh = opened(strategy)
    assert not any(plan.plan.lookahead or plan.plan.items[0].value_min > 1.0 for plan in plans(mesh))


def test_a_single_token_is_drafted_for_by_nobody() -> None:
    assert plans(opened(count=1)) == []


def test_how_often_something_is_left_to_start_from_is_not_learned_from_openings() -> None:
    mesh = opened()
    while len(plans(mesh)) < 2:
        mesh.deliver_oldest()
    before = mesh.scheduler.pace.bare_share, mesh.scheduler.pace.tree_share
    while sum(isinstance(answer, ev.TreeCame) for answer in mesh.answers) < 2:
        mesh.deliver_oldest()
    assert (mesh.scheduler.pace.bare_share, mesh.scheduler.pace.tree_share) == before


def test_an_opening_of_a_fusion_that_is_lost_is_made_good() -> None:
    mesh = opened()
    mesh.lose_fusion()
    mesh.return_fusion()
    mesh.run()
    rest = plans(mesh)[1:]
    assert rest[0].plan.items[0].base_length == 0, "the new one knows nothing"
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain


def test_a_request_that_leaves_before_its_drafters_begin_leaves_nothing() -> None:
    mesh = opened()
    mesh.leave("r")
    mesh.run()
    assert mesh.fusion is not None
    assert mesh.fusion.session_count == 0
    assert mesh.scheduler.live_count == 0


def test_a_verifier_lost_while_it_reads_does_not_open_twice() -> None:
    mesh = Mesh(verifiers=("v", "w"))
    mesh.sent.clear()
    mesh.ask("r", PROMPT, strategy=AHEAD)
    mesh.lose_verifier(batches(mesh)[0].verifier)
    assert len(plans(mesh)) == 1
    assert len(batches(mesh)) == 2
    mesh.run()
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain
