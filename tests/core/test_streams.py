"""PipeInfer and DSI in the scheduler: drafting goes on while verdicts are out, and what they refute is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest
from harness import DRAFTERS, FUSION, LIMITS, TARGET, TWIN, Mesh, toy

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.sampling import Sampling
from cosine.core.stream import Stream
from cosine.core.tree import chain

TWO = ("v1", "v2")
Sent = TypeVar("Sent")


def sent(mesh: Mesh, kind: type[Sent]) -> list[Sent]:
    return [command for command in mesh.sent if isinstance(command, kind)]


def draft_everything(mesh: Mesh) -> None:
    """Delivers all but what goes to and comes from the verifiers."""
    while links := [link for link, queue in mesh.links.items() if queue and not set(link) & {"verifier", *TWO}]:
        mesh.deliver(links[0])


def judge(mesh: Mesh, verifier: str = "verifier") -> None:
    """Delivers one batch to a verifier and its answers."""
    mesh.deliver(("scheduler", verifier))
    while mesh.links.get((verifier, "scheduler")):
        mesh.deliver((verifier, "scheduler"))


def test_pipeinfer_drafts_on_while_a_verdict_is_out() -> None:
    mesh = Mesh()
    mesh.ask("r", strategy="pipeinfer:value_min=0")
    draft_everything(mesh)
    plans = sent(mesh, ev.SendPlan)
    assert len(sent(mesh, ev.SendBatch)) == 2, "one at work, one behind it"
    assert len(plans) >= 3, "several micro-batches, and not a verdict yet"
    bases = [plan.plan.items[0].base_length for plan in plans]
    assert bases == sorted(set(bases)), "each goes on where the last one ended"
    mesh.run()
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain


def test_pipeinfer_stops_at_its_confidence_cutoff() -> None:
    mesh = Mesh()
    mesh.ask("r", strategy="pipeinfer:value_min=1")
    draft_everything(mesh)
    assert len(sent(mesh, ev.SendPlan)) == 1, "the first micro-batch said that it is not sure"


def test_a_micro_batch_ends_at_the_first_token_that_its_drafter_is_not_sure_of() -> None:
    """However little it is sure of all of them together: what comes behind is drafted next, and sent all the same."""
    stream = Stream(runs_max=4, per_peer_max=4, value_min=0.5, drafting_from=3)
    stream.drafted(chain([10, 11, 12, 13], [0.7, 0.7, 0.7, 0.4]), [1, 2, 3])
    assert (stream.speculated, stream.exhausted) == ([10, 11, 12], False)
    stream.drafting_from = 6
    stream.drafted(chain([13, 14], [0.4, 0.9]), [1, 2, 3])
    assert (stream.speculated, stream.exhausted) == ([10, 11, 12], True)


def test_stretches_of_several_requests_go_to_a_target_together() -> None:
    """One behind the other, each request would get every second pass."""
    mesh = Mesh()
    texts = [mesh.ask(f"r{seed}", (seed, 7, 9), 40, strategy="pipeinfer") for seed in range(3)]
    judge(mesh)
    sizes: list[int] = []
    while sum(not text.over for text in texts) == len(texts):
        draft_everything(mesh)
        (batch,) = (message for link, message in mesh.links.items() if link == ("scheduler", "verifier"))
        assert len(batch) == 1, "nothing waits behind what is under way"
        sizes.append(len([command for command in mesh.sent if isinstance(command, ev.SendBatch)][-1].items))
        judge(mesh)
    assert sizes[1:] == [3] * (len(sizes) - 1)
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]


def test_pipeinfer_cancels_inside_the_verifier_what_an_earlier_verdict_refutes() -> None:
    mesh = Mesh(drafters={"d0": "toy:seed=1,own=9,skill=0"})
    mesh.ask("r", strategy="pipeinfer:value_min=0", count=8)
    draft_everything(mesh)
    batches = [command.batch_id for command in sent(mesh, ev.SendBatch)]
    judge(mesh)
    assert [command.batch_id for command in sent(mesh, ev.CancelBatch)] == batches[1:2]
    mesh.run()
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain


def test_dsi_lets_several_targets_work_on_one_request_at_once() -> None:
    mesh = Mesh(verifiers=TWO)
    mesh.ask("r", strategy="dsi")
    draft_everything(mesh)
    batches = sent(mesh, ev.SendBatch)
    assert {command.verifier for command in batches} == set(TWO)
    assert all(queue for link, queue in mesh.links.items() if link[0] == "scheduler" and link[1] in TWO)
    mesh.run()
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain


def test_after_a_refuted_draft_a_free_target_goes_on_at_once_and_the_other_stops() -> None:
    mesh = Mesh(drafters={"d0": "toy:seed=1,own=9,skill=0"}, verifiers=TWO)
    text = mesh.ask("r", strategy="dsi", count=12)
    while text.admission.max_new_tokens - len(text.tokens) > 2:
        draft_everything(mesh)
        mesh.sent.clear()
        judge(mesh, "v1")
        (batch,), (cancel,) = sent(mesh, ev.SendBatch), sent(mesh, ev.CancelBatch)
        assert batch.verifier == "v1", "not behind what is still to be stopped"
        assert cancel.verifier == "v2"
        while mesh.links.get(("scheduler", "v2")):
            judge(mesh, "v2")
    mesh.run()
    assert text.tokens == text.plain


def test_verdicts_may_come_in_any_order() -> None:
    mesh = Mesh(verifiers=TWO)
    text = mesh.ask("r", strategy="dsi", count=30)
    while not text.over:
        draft_everything(mesh)
        for verifier in reversed(TWO):
            if mesh.links.get(("scheduler", verifier)):
                judge(mesh, verifier)
    assert text.tokens == text.plain


def test_a_wrong_draft_never_delays_the_targets_own_next_token() -> None:
    """Something of the request is at a target whenever it waits for nothing else: never slower than plain decoding."""
    mesh = Mesh(drafters={"d0": "toy:seed=1,own=9,skill=0"})
    text = mesh.ask("r", strategy="pipeinfer:value_min=0", count=12)
    while not text.over:
        assert mesh.links.get(("scheduler", "verifier")), "the target is idle"
        judge(mesh)
        draft_everything(mesh)
    assert text.tokens == text.plain


@pytest.mark.parametrize("strategy", ["pipeinfer", "dsi"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_lost_target_costs_its_stretches_and_not_the_text(strategy: str, temperature: float) -> None:
    mesh = Mesh(verifiers=TWO)
    texts = [mesh.ask(f"r{seed}", (seed, 7), 24, Sampling(temperature, seed=seed), strategy) for seed in range(3)]
    for _ in range(60):
        mesh.deliver_oldest()
    mesh.lose_verifier("v1")
    for _ in range(20):
        mesh.deliver_oldest()
    mesh.return_verifier("v1")
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]


def test_a_strategy_of_several_targets_is_refused_where_there_is_one() -> None:
    text = Mesh().ask("r", strategy="dsi")
    assert text.error is not None
    assert (text.error.reason, "2 verifiers" in text.error.message) == ("TOO_FEW_VERIFIERS", True)


def test_more_drafters_than_exist_are_refused_where_they_were_asked_for() -> None:
    mesh = Mesh()
    text = mesh.ask("r", strategy="cosine:drafter_count=9")
    assert text.error is not None
    assert text.error.reason == "TOO_FEW_DRAFTERS"
    assert f"ask for {len(DRAFTERS)} at most" in text.error.message
    mesh.lose_fusion()
    assert mesh.ask("s", strategy="cosine:drafter_count=4").error is None, "they are only away"
    mesh.return_fusion()
    mesh.run()
    assert FUSION in mesh.scheduler._planner.fusions


def test_drafts_read_as_context_that_are_refuted_meanwhile_do_not_count_as_held() -> None:
    """A second target reads the context, drafted tokens and all, while the first one refutes them."""
    mesh = Mesh(drafters={"d0": "toy:seed=1,own=9,skill=0"}, verifiers=TWO, config=SchedulerConfig(prefill_chunk=4))
    text = mesh.ask("r", prompt=tuple(range(17)), strategy="dsi")
    while not text.tokens:
        draft_everything(mesh)
        judge(mesh, "v1")
        if mesh.links.get(("scheduler", "v2")) and len(text.tokens) == 0:
            judge(mesh, "v2")
    mesh.run()
    assert text.tokens == text.plain


def test_of_a_target_whose_stretch_is_given_up_only_what_it_held_before_is_certain() -> None:
    """Cancelled before it ran, it leaves the target with whatever an older, refuted stretch had put there."""
    stream = Stream(runs_max=2, per_peer_max=1, value_min=0.0, peer_ids=["a", "b"])
    stream.held = {"a": 9, "b": 5}
    stream.speculated = [50, 51, 52, 53, 54, 55]
    committed = list(range(10))
    first, second = stream.next_stretch("a", 10, 3), stream.next_stretch("b", 10, 3)
    taken = stream.judged(first, ev.SessionVerdict("s", (50, 99), (0,), 11), committed)
    assert (taken.diverged, taken.given_up, taken.token_ids) == (True, [second], [50, 99])
    assert stream.held == {"a": 11, "b": 5}


def test_what_follows_a_verdict_that_ends_early_is_sent_again_from_there() -> None:
    """A target that has no room for a stretch answers with its own next token alone, and nothing is refuted."""
    stream = Stream(runs_max=2, per_peer_max=1, value_min=0.0, peer_ids=["small", "large"])
    stream.held = {"small": 9, "large": 9}
    stream.speculated = [50, 51, 52, 53, 54, 55]
    committed = list(range(10))
    first, second = stream.next_stretch("small", 10, 3), stream.next_stretch("large", 10, 3)
    assert stream.judged(second, ev.SessionVerdict("s", (53, 54, 55, 56), (0, 1, 2), 15), committed).token_ids == []
    taken = stream.judged(first, ev.SessionVerdict("s", (50,), (), 10), committed)
    assert (taken.token_ids, taken.diverged, taken.given_up) == ([50], False, [second])
    committed += taken.token_ids
    assert stream.speculated == [51, 52, 53, 54, 55], "it is still worth sending"
    again = stream.next_stretch("large", len(committed), 3)
    assert (again.start, again.base) == (11, 9)
    assert stream.held["small"] == 10


@pytest.mark.parametrize("strategy", ["dsi", "pipeinfer:verifiers=2"])
def test_a_target_without_room_for_stretches_does_not_change_the_text(strategy: str) -> None:
    mesh = Mesh(drafters=TWIN, verifiers=TWO)
    mesh.verifiers["v2"] = toy(TARGET, replace(LIMITS, tree_nodes_max=0))
    text = mesh.ask("r", strategy=strategy)
    while not text.over:
        draft_everything(mesh)
        while mesh.links.get(("scheduler", "v1")):
            judge(mesh, "v1")
            draft_everything(mesh)
        if mesh.links.get(("scheduler", "v2")):
            judge(mesh, "v2")
    assert text.tokens == text.plain


@pytest.mark.parametrize(("strategy", "learns"), [("vanilla", True), ("vanilla:runs=2", False)])
def test_what_a_streamed_plan_appends_says_nothing_of_confidences(strategy: str, learns: bool) -> None:
    """It is drafted and not judged: its drafter would always have been right."""
    mesh = Mesh()
    text = mesh.ask("r", strategy=strategy)
    mesh.run()
    assert text.tokens == text.plain
    assert mesh.fusion is not None
    assert bool(mesh.fusion._calibrations) is learns


def test_after_its_last_target_is_lost_a_request_drafts_on_from_its_committed_tokens() -> None:
    """What was drafted below them may be wrong, and is no longer known here."""
    mesh = Mesh(drafters=TWIN)
    text = mesh.ask("r", strategy="pipeinfer:value_min=0")
    judge(mesh)
    draft_everything(mesh)
    committed = 3 + len(text.tokens)
    assert sent(mesh, ev.SendPlan)[-1].plan.items[0].base_length > committed
    mesh.lose_verifier("verifier")
    mesh.sent.clear()
    mesh.return_verifier("verifier")
    (item,) = sent(mesh, ev.SendPlan)[0].plan.items
    assert item.base_length == committed
    mesh.run()
    assert text.tokens == text.plain
