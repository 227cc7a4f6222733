"""The scheduler, told as traces: one event per line, below it what it wants done.

A batch reads `VERIFIER#BATCH SESSION BASE+[tokens]`, with a tree `|[tokens]/[parents]` behind; a plan `FUSION#ROUND
SESSION BASE+[tokens] by DRAFTERS to DEPTH`; what the gateway is told `REQUEST@OFFSET [tokens] FINISH`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest
from cosine.core.plan import DraftedTree
from cosine.core.scheduler import Scheduler
from cosine.core.speculation import TRIAL_ROUNDS
from cosine.core.strategy import PRESETS
from cosine.core.tree import chain


def told(commands: Sequence[ev.Command]) -> list[str]:
    """Commands as text; wishes to be woken are left out."""
    lines = []
    for command in commands:
        match command:
            case ev.SendBatch():
                lines.append(f"{command.verifier}#{command.batch_id} " + ", ".join(map(_batched, command.items)))
            case ev.SendPlan():
                items = ", ".join(
                    f"{item.session_id} {item.base_length}+{list(item.token_ids)} by {' '.join(item.drafters)} "
                    f"to {item.depth}"
                    for item in command.plan.items
                )
                lines.append(f"{command.fusion}#{command.plan.round_id} {items}")
            case ev.Progress():
                word = command.error.reason if command.error else command.finish
                lines.append(f"{command.request_id}@{command.offset} {list(command.token_ids)} {word}".strip())
            case ev.CloseSession():
                lines.append(f"{command.peer_id} closes {command.session_id}")
    return lines


def _batched(item: ev.BatchItem) -> str:
    tree = f"|{list(item.tree.token_ids)}/{list(item.tree.parents)}" if item.tree else ""
    return f"{item.session_id} {item.base_length}+{list(item.token_ids)}{tree}" + " only" * item.prefill_only


class Trace:
    """A scheduler and the time; each event moves the clock on by ten milliseconds."""

    def __init__(self, config: SchedulerConfig | None = None, drafters: Sequence[str] = ("a", "b")) -> None:
        self.scheduler = Scheduler(config or SchedulerConfig())
        self.now = 50.0
        self.sent: list[ev.Command] = []
        self(ev.VerifierUp(ev.VerifierFacts("v")))
        if drafters:
            self(ev.FusionUp("f"))
            self(ev.DraftersChanged("f", tuple(drafters)))

    def __call__(self, *events: ev.Event) -> list[str]:
        self.now += 0.01
        self.sent = [command for event in events for command in self.scheduler.handle(event, self.now)]
        return told(self.sent)

    def came(
        self, request_id: str = "r", prompt: Sequence[int] = (1, 2, 3), count: int = 20, **more: object
    ) -> list[str]:
        admission = ev.Admission(request_id, 1, "g", tuple(prompt), len(prompt), count, **more)  # type: ignore[arg-type]  # a dict of keywords has one type of values
        return self(ev.RequestCame(admission))

    def judged(self, batch_id: int, *verdicts: ev.SessionVerdict) -> list[str]:
        return self(*(ev.VerdictCame(batch_id, verdict) for verdict in verdicts), ev.BatchDone(batch_id))

    def drafted(self, round_id: int, *trees: DraftedTree) -> list[str]:
        return self(*(ev.TreeCame(round_id, tree) for tree in trees), ev.PlanDone(round_id))


def verdict(session: str, tokens: Sequence[int], cached: int, nodes: Sequence[int] = ()) -> ev.SessionVerdict:
    return ev.SessionVerdict(session, tuple(tokens), tuple(nodes), cached)


def ids(trace: Trace) -> tuple[int, str]:
    """Number of the last batch or plan that was sent, and its first session."""
    for command in reversed(trace.sent):
        if isinstance(command, ev.SendBatch):
            return command.batch_id, command.items[0].session_id
        if isinstance(command, ev.SendPlan):
            return command.plan.round_id, command.plan.items[0].session_id
    raise AssertionError("nothing was sent")


def test_a_request_is_read_drafted_for_verified_and_told_round_by_round() -> None:
    trace = Trace()
    assert trace.came(count=6, strategy="vanilla") == ["r@0 []", "v#2 s-1 0+[1, 2, 3]"]
    assert trace.judged(2, verdict("s-1", [10], 3)) == ["r@0 [10]", "f#3 s-1 0+[1, 2, 3, 10] by a to 4"]
    tree = DraftedTree("s-1", 4, chain([11, 12, 99]), exchange_count=1)
    assert trace.drafted(3, tree) == ["v#4 s-1 3+[10]|[11, 12, 99]/[-1, 0, 1]"]
    told_next = trace.judged(4, verdict("s-1", [11, 12, 13], 6, nodes=[0, 1]))
    assert told_next == ["r@1 [11, 12, 13]", "f#5 s-1 4+[11, 12, 13] by a to 1"]
    assert trace.drafted(5, DraftedTree("s-1", 7, chain([14]))) == ["v#6 s-1 6+[13]|[14]/[-1]"]
    assert trace.judged(6, verdict("s-1", [14, 15], 8, nodes=[0])) == [
        "r@4 [14, 15] length",
        "v closes s-1",
        "f closes s-1",
    ]


def test_plain_requests_go_from_verdict_to_batch_without_drafting() -> None:
    trace = Trace()
    assert trace.came(count=2, strategy="plain") == ["r@0 []", "v#2 s-1 0+[1, 2, 3]"]
    assert trace.judged(2, verdict("s-1", [10], 3)) == ["r@0 [10]", "v#3 s-1 3+[10]"]
    assert trace.judged(3, verdict("s-1", [11], 4)) == ["r@1 [11] length", "v closes s-1"]


def test_requests_that_come_while_a_batch_is_under_way_form_the_next_one() -> None:
    trace = Trace(drafters=())
    assert trace.came("p", strategy="plain") == ["p@0 []", "v#2 s-1 0+[1, 2, 3]"]
    assert trace.came("q", strategy="plain") == ["q@0 []"]
    assert trace.came("r", strategy="plain") == ["r@0 []"]
    batch = trace.judged(2, verdict("s-1", [10], 3))
    assert batch[0] == "p@0 [10]"
    assert [
        item.session_id for command in trace.sent if isinstance(command, ev.SendBatch) for item in command.items
    ] == [
        "s-3",
        "s-4",
        "s-1",
    ]


def test_requests_of_one_batch_draft_in_one_plan() -> None:
    trace = Trace()
    trace.came("p", strategy="plain")
    trace.came("q", prompt=(4,), strategy="vanilla")
    trace.came("r", prompt=(5,), strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    batch, _ = ids(trace)
    told_next = trace.judged(batch, verdict("s-3", [20], 1), verdict("s-4", [30], 1), verdict("s-1", [11], 4))
    (plan,) = [line.partition(" ")[2] for line in told_next if line.startswith("f#")]
    assert plan == "s-3 0+[4, 20] by a to 4, s-4 0+[5, 30] by a to 4"


def test_a_long_prompt_is_read_in_parts() -> None:
    trace = Trace(SchedulerConfig(prefill_chunk=4), drafters=())
    assert trace.came(prompt=range(10), strategy="plain") == ["r@0 []", "v#2 s-1 0+[0, 1, 2, 3] only"]
    assert trace.judged(2, verdict("s-1", [], 4)) == ["v#3 s-1 4+[4, 5, 6, 7] only"]
    assert trace.judged(3, verdict("s-1", [], 8)) == ["v#4 s-1 8+[8, 9]"]


def test_a_verifier_that_misses_the_base_is_sent_everything() -> None:
    trace = Trace(drafters=())
    trace.came(strategy="plain")
    trace.judged(2, verdict("s-1", [10], 3))
    assert trace.judged(3, ev.SessionVerdict("s-1", cached_length=2, missed=True)) == ["v#4 s-1 0+[1, 2, 3, 10]"]
    assert trace.judged(4, verdict("s-1", [11], 4)) == ["r@1 [11]", "v#5 s-1 4+[11]"]


def test_a_verifier_that_is_lost_is_waited_for_and_its_successor_is_sent_everything() -> None:
    trace = Trace(drafters=())
    trace.came(strategy="plain")
    trace.judged(2, verdict("s-1", [10], 3))
    assert trace(ev.VerifierDown("v")) == []
    assert trace.judged(3, verdict("s-1", [11], 4)) == [], "nobody waits for the dead one's word"
    assert trace(ev.VerifierUp(ev.VerifierFacts("w"))) == ["w#4 s-1 0+[1, 2, 3, 10]"]


def test_a_request_that_loses_its_verifier_with_its_verdict_in_hand_finds_another_at_once() -> None:
    trace = Trace()
    trace.scheduler.pace.truth = 0.0
    trace.scheduler._planner.offers._trials.round_count = TRIAL_ROUNDS
    trace.came()
    trace(ev.VerifierUp(ev.VerifierFacts("w")))
    (line,) = trace(ev.VerdictCame(2, verdict("s-1", [10], 3)), ev.VerifierDown("v"))[1:]
    assert line.startswith("w#")
    assert line.endswith("s-1 0+[1, 2, 3, 10]")


def test_fusion_that_comes_back_is_sent_everything() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    trace.drafted(3, DraftedTree("s-1", 4))
    trace(ev.FusionDown("f"), ev.FusionUp("g"), ev.DraftersChanged("g", ("a",)))
    _, plan = trace.judged(4, verdict("s-1", [11], 4))
    assert plan.startswith("g#")
    assert plan.endswith("s-1 0+[1, 2, 3, 10, 11] by a to 4")


def test_what_a_verifier_refuses_fails_with_its_reason() -> None:
    trace = Trace(drafters=())
    trace.came()
    refused = trace.judged(2, ev.SessionVerdict("s-1", refused="a session holds at most 8 tokens"))
    assert refused == ["r@0 [] VERIFIER_REFUSED", "v closes s-1"]
    (error,) = [command.error for command in trace.sent if isinstance(command, ev.Progress)]
    assert isinstance(error, BadRequest)
    assert "at most 8" in error.message


def test_an_unknown_strategy_is_refused_at_once() -> None:
    trace = Trace()
    assert trace.came(strategy="magic") == ["r@0 [] UNKNOWN_STRATEGY"]
    assert trace.scheduler.live_count == 0


def test_a_tree_for_another_length_is_verified_without() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    assert trace.drafted(3, DraftedTree("s-1", 3, chain([11]))) == ["v#4 s-1 3+[10]"]


def test_fusion_that_misses_the_base_is_sent_everything_with_the_next_plan() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    assert trace.drafted(3, DraftedTree("s-1", 4, missed=True)) == ["v#4 s-1 3+[10]"]
    assert trace.judged(4, verdict("s-1", [11], 4)) == ["r@1 [11]", "f#5 s-1 0+[1, 2, 3, 10, 11] by a to 4"]


def test_a_session_left_out_of_a_finished_plan_is_verified_without() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    assert trace.drafted(3) == ["v#4 s-1 3+[10]"]


def test_drafters_that_vanish_between_verdict_and_plan_cost_nothing_but_their_drafts() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    trace.drafted(3, DraftedTree("s-1", 4))
    trace(ev.VerdictCame(4, verdict("s-1", [11], 4)), ev.DraftersChanged("f", ()), ev.BatchDone(4))
    sent = (
        trace.drafted(ids(trace)[0], DraftedTree("s-1", 5)) if trace.scheduler._planner._under_way else told(trace.sent)
    )
    assert sent[-1].endswith("s-1 4+[11]")
    assert sent[-1].startswith("v#")


def test_a_draft_that_is_late_is_not_waited_for_and_its_tree_is_dropped() -> None:
    trace = Trace()
    trace.came(strategy="vanilla")
    trace.judged(2, verdict("s-1", [10], 3))
    (wake,) = [command.time for command in trace.sent if isinstance(command, ev.WakeAt)]
    assert trace(ev.Tick()) == []
    trace.now = wake
    assert trace(ev.Tick()) == ["v#4 s-1 3+[10]"]
    assert trace.drafted(3, DraftedTree("s-1", 4, chain([11]))) == []
    assert trace.scheduler.stale_count == 1
    (live,) = trace.scheduler._requests
    assert live.figures.drafted_token_count == 1, "it was drafted all the same, for nothing"


def test_the_wish_to_be_woken_is_the_earliest_alarm() -> None:
    trace = Trace()
    trace.came(deadline=trace.now + 0.5)
    wakes = [command.time for command in trace.sent if isinstance(command, ev.WakeAt)]
    assert wakes == [pytest.approx(trace.now - 0.01 + 0.5)]


def test_room_is_what_is_left_of_the_bound_on_requests() -> None:
    trace = Trace(SchedulerConfig(live_max=2))
    assert trace.scheduler.room == 2
    for name in "pqr":
        trace.came(name)
    assert (trace.scheduler.room, trace.scheduler.live_count) == (0, 3)


@pytest.mark.parametrize("strategy", sorted(PRESETS))
def test_a_batch_keeps_to_its_rows_whatever_the_trees(strategy: str) -> None:
    verifiers = ("v1", "v2")[: PRESETS[strategy].verifiers]
    mesh = Mesh(config=SchedulerConfig(batch_rows_max=40, prefill_chunk=16), verifiers=verifiers)
    for number in range(12):
        mesh.ask(f"r{number}", (number, *range(number)), strategy=strategy)
    mesh.run()
    batches = [command.items for command in mesh.sent if isinstance(command, ev.SendBatch)]
    rows = [sum(len(item.token_ids) + len(item.tree) for item in items) for items in batches]
    assert max(rows) <= 40 or all(len(items) == 1 for items, count in zip(batches, rows, strict=True) if count > 40)
    assert max(len(items) for items in batches) > 1


@pytest.mark.parametrize("strategy", sorted(PRESETS))
def test_a_batch_keeps_to_its_tokens_of_context_and_a_longer_one_goes_alone(strategy: str) -> None:
    verifiers = ("v1", "v2")[: PRESETS[strategy].verifiers]
    mesh = Mesh(config=SchedulerConfig(batch_tokens_max=60), verifiers=verifiers)
    for number in range(8):
        mesh.ask(f"r{number}", (number, *range(8 * number)), strategy=strategy)
    mesh.run()
    batches = [command.items for command in mesh.sent if isinstance(command, ev.SendBatch)]
    lengths = [[item.base_length + len(item.token_ids) for item in items] for items in batches]
    assert all(sum(of_batch) <= 60 or len(of_batch) == 1 for of_batch in lengths)
    assert max(map(len, lengths)) > 1
    assert all(text.tokens == text.plain for text in mesh.texts.values())
