"""A request whose strategy demands peers the mesh does not have is refused when it comes, never after it has begun."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import DRAFTERS, FUSION, Mesh, Text

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.pace import Pace
from cosine.core.planner import NAMES_MAX, Planner
from cosine.core.strategy import NAMES_SAID


@pytest.mark.parametrize(
    ("strategy", "reason", "allowed"),
    [
        ("dsi", "TOO_FEW_VERIFIERS", "at most 1 verifiers"),
        ("pipeinfer:verifiers=2", "TOO_FEW_VERIFIERS", "at most 1 verifiers"),
        (f"cosine:drafter_count={len(DRAFTERS) + 1}", "TOO_FEW_DRAFTERS", f"at most {len(DRAFTERS)} drafters"),
        (f"cosine:first_count={len(DRAFTERS) + 1}", "TOO_FEW_DRAFTERS", f"at most {len(DRAFTERS)} drafters"),
    ],
)
def test_it_is_refused_by_name_with_what_would_be_allowed(strategy: str, reason: str, allowed: str) -> None:
    error = Mesh().ask("r", strategy=strategy).error
    assert error is not None
    assert (error.reason, error.details) == (reason, {"field": "strategy", "value": strategy, "allowed": allowed})


@pytest.mark.parametrize("strategy", ["dsi", f"cosine:drafter_count={len(DRAFTERS) + 1}"])
def test_one_that_has_begun_elsewhere_goes_on_with_whoever_is_there(strategy: str) -> None:
    mesh = Mesh()
    text = mesh.ask("r", strategy="plain", count=24)
    while len(text.tokens) < 6:
        mesh.deliver_oldest()
    mesh.leave("r")
    begun = replace(
        text.admission, request_id="s", token_ids=(*text.admission.token_ids, *text.tokens), strategy=strategy
    )
    taken_over = mesh.texts["s"] = Text(begun, list(text.tokens))
    mesh.tell(ev.RequestCame(begun))
    mesh.run()
    assert taken_over.error is None
    assert taken_over.tokens == taken_over.plain


def test_while_peers_are_still_coming_a_request_waits_for_those_that_it_demands() -> None:
    mesh = Mesh()
    mesh.return_verifier("second of three")
    text = mesh.ask("r", strategy="dsi:verifiers=3")
    assert text.error is None, "a third may be on its way"
    mesh.pass_time(mesh.scheduler.config.settle_s / 2)
    mesh.return_verifier("third")
    mesh.run()
    assert text.tokens == text.plain
    assert (text.error, text.finish) == (None, "length")


def test_once_no_further_peers_have_come_for_a_while_it_is_refused() -> None:
    mesh = Mesh()
    mesh.return_verifier("second of three")
    text = mesh.ask("r", strategy="dsi:verifiers=3")
    assert mesh.scheduler.room == mesh.scheduler.config.live_max - 1, "it takes a place while it waits"
    assert mesh.sent[-2:-1] == [ev.Progress("gateway", "r", 1, 0)], "its gateway hears that somebody has it"
    mesh.pass_time(mesh.scheduler.config.settle_s)
    assert text.error is not None
    assert text.error.reason == "TOO_FEW_VERIFIERS"
    assert mesh.scheduler.room == mesh.scheduler.config.live_max


def test_whoever_leaves_while_it_waits_is_not_served() -> None:
    mesh = Mesh()
    mesh.return_verifier("second of three")
    left, orphan = mesh.ask("r", strategy="dsi:verifiers=3"), mesh.ask("s", strategy="dsi:verifiers=3")
    mesh.leave("r")
    mesh.tell(ev.GatewayDown("gateway"))
    mesh.return_verifier("third")
    assert (left.tokens, orphan.tokens, mesh.scheduler.live_count) == ([], [], 0)
    assert not any(isinstance(command, ev.SendBatch) for command in mesh.sent)


def test_of_several_attempts_at_a_request_that_waits_the_last_is_served() -> None:
    mesh = Mesh()
    mesh.return_verifier("second of three")
    first = mesh.ask("r", strategy="dsi:verifiers=3").admission
    mesh.ask_again("r")
    mesh.tell(ev.RequestCame(first))
    mesh.tell(ev.RequestLeft("r", first.attempt))
    mesh.return_verifier("third")
    mesh.run()
    assert mesh.texts["r"].tokens == mesh.texts["r"].plain


def named(name: str) -> str:
    return f"vanilla:drafter={name}"


@pytest.mark.parametrize("name", ["d1", "a model"])
def test_a_drafter_may_be_named_by_its_peer_or_its_model_even_while_it_is_away(name: str) -> None:
    mesh = Mesh()
    facts = (ev.DrafterFacts("d0", model_id="another"), ev.DrafterFacts("d1", model_id="a model"))
    mesh.tell(ev.DraftersChanged(FUSION, ("d0", "d1"), facts))
    mesh.tell(ev.DraftersChanged(FUSION, ("d0",), facts[:1]))
    assert mesh.ask("r", strategy=named(name)).error is None


def test_one_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    error = Mesh().ask("r", strategy=named("nosuch")).error
    assert error is not None
    known = ", ".join(DRAFTERS)
    assert error.reason == "UNKNOWN_DRAFTER"
    assert error.details == {"field": "strategy", "value": named("nosuch"), "allowed": known}


def test_while_no_drafter_has_been_seen_any_may_be_named() -> None:
    mesh = Mesh(drafters={})
    text = mesh.ask("r", strategy=named("not yet up"))
    mesh.run()
    assert text.tokens == text.plain


def test_of_drafters_that_come_and_go_the_last_names_are_remembered() -> None:
    planner = Planner(SchedulerConfig(), Pace())
    planner.fusion_up("f")
    planner.drafters_changed("f", [ev.DrafterFacts("first", model_id="another")])
    for number in range(2 * NAMES_MAX):
        planner.drafters_changed("f", [ev.DrafterFacts(f"pod-{number}", model_id="a model")])
    gone = {f"pod-{number}" for number in range(NAMES_MAX - 1, 2 * NAMES_MAX - 1)}
    assert planner.names_seen == {"a model", "another", f"pod-{2 * NAMES_MAX - 1}"} | gone
    planner.fusion_down("f")
    assert f"pod-{2 * NAMES_MAX - 1}" in planner.names_seen


def test_a_drafter_that_comes_back_with_another_model_may_still_be_named_by_the_one_it_had() -> None:
    mesh = Mesh()
    for model in ("one", "another"):
        mesh.tell(ev.DraftersChanged(FUSION, ("d0",), (ev.DrafterFacts("d0", model_id=model),)))
    assert [mesh.ask(name, strategy=named(name)).error for name in ("one", "another", "d0")] == [None] * 3


def test_however_many_drafters_are_up_each_may_be_named_and_a_refusal_names_a_few() -> None:
    mesh = Mesh()
    pods = [f"code-{number}" for number in range(10)] + [f"prose-{number}" for number in range(2 * NAMES_MAX)]
    facts = tuple(ev.DrafterFacts(pod, model_id=pod.partition("-")[0]) for pod in pods)
    mesh.tell(ev.DraftersChanged(FUSION, tuple(pods), facts))
    assert [name for name in ("code", "prose", *pods) if mesh.ask(name, strategy=named(name)).error] == []
    error = mesh.ask("r", strategy=named("nosuch")).error
    assert error is not None
    assert error.details["allowed"].split(", ")[: NAMES_SAID + 1] == [
        *sorted(("code", "prose", *pods, *DRAFTERS))[:NAMES_SAID],
        f"and {len(pods) + 2 + len(DRAFTERS) - NAMES_SAID} more",
    ]
