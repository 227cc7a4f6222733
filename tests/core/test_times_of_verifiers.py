"""Every verifier has times of its own: seeded from what it says, learned from its batches, used for its batches."""

from __future__ import annotations

from collections import Counter

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.core.timing import LineModel

FAST = ev.VerifierFacts("fast", base_ms=10.0, row_ms=0.5)
SLOW = ev.VerifierFacts("slow", base_ms=80.0, row_ms=4.0)
SILENT = ev.VerifierFacts("silent")


class Stage:
    """A scheduler whose verifiers answer with one token for every request, after as long as `takes_ms` says: a fixed
    time and a time per row. Whoever is due first answers first."""

    def __init__(self, *verifiers: ev.VerifierFacts, config: SchedulerConfig | None = None) -> None:
        self.scheduler = Scheduler(config or SchedulerConfig())
        self.now = 1.0
        self.sent: list[ev.SendBatch] = []
        self.takes_ms: dict[str, tuple[float, float]] = {}
        self._due: list[tuple[float, ev.SendBatch]] = []
        for facts in verifiers:
            self.takes_ms[facts.peer_id] = (facts.base_ms, facts.row_ms)
            self.tell(ev.VerifierUp(facts))

    def tell(self, *events: ev.Event) -> None:
        for command in [command for event in events for command in self.scheduler.handle(event, self.now)]:
            if isinstance(command, ev.SendBatch):
                self.sent.append(command)
                base_ms, row_ms = self.takes_ms[command.verifier]
                self._due.append((self.now + (base_ms + row_ms * rows(command)) / 1000, command))

    def ask(self, count: int, token_count: int = 10_000, prompt: tuple[int, ...] = (1, 2, 3)) -> None:
        for _ in range(count):
            name = f"r{len(self.scheduler._requests)}"
            self.tell(ev.RequestCame(ev.Admission(name, 1, "g", prompt, len(prompt), token_count)))

    def answer(self, count: int) -> None:
        for _ in range(count):
            self._due.sort(key=lambda entry: entry[0])
            self.now, batch = self._due.pop(0)
            verdicts = [ev.SessionVerdict(item.session_id, (5,), (), held(item)) for item in batch.items]
            self.tell(*(ev.VerdictCame(batch.batch_id, word) for word in verdicts), ev.BatchDone(batch.batch_id))

    def model(self, name: str) -> LineModel:
        return self.scheduler.seats[name].verify


def rows(batch: ev.SendBatch) -> int:
    return sum(len(item.token_ids) + len(item.tree) for item in batch.items)


def held(item: ev.BatchItem) -> int:
    return item.base_length + len(item.token_ids)


def test_a_verifier_starts_from_what_it_measured_itself() -> None:
    stage = Stage(FAST, SLOW)
    for facts in (FAST, SLOW):
        model = stage.model(facts.peer_id)
        assert (model.base_ms, model.slope_ms) == (facts.base_ms, facts.row_ms)


def test_one_that_measured_nothing_is_taken_for_the_others_until_it_shows_its_own() -> None:
    stage = Stage(FAST, SILENT)
    assert stage.model("silent").predict(8) == stage.model("fast").predict(8) == FAST.base_ms + 8 * FAST.row_ms
    stage.takes_ms["silent"] = (300.0, 1.0)
    stage.ask(8)
    stage.answer(600)
    assert stage.model("silent").predict(4) == pytest.approx(304.0, rel=0.1)
    assert stage.model("fast").predict(4) == pytest.approx(12.0, rel=0.1)


def test_what_one_takes_says_nothing_of_another() -> None:
    stage = Stage(FAST, SLOW)
    stage.takes_ms = {"fast": (20.0, 1.0), "slow": (150.0, 2.0)}
    stage.ask(8)
    stage.answer(800)
    assert {batch.verifier for batch in stage.sent} == {"fast", "slow"}
    assert stage.model("fast").predict(4) == pytest.approx(24.0, rel=0.05)
    assert stage.model("slow").predict(4) == pytest.approx(158.0, rel=0.05)
    assert stage.model("fast").predict(4) < stage.scheduler.pace.verify.predict(4) < stage.model("slow").predict(4)


def test_what_is_planned_by_is_the_only_verifiers_own_until_another_comes() -> None:
    stage = Stage(FAST)
    stage.takes_ms["fast"] = (20.0, 1.0)
    stage.ask(4)
    stage.answer(200)
    learned_ms = stage.model("fast").predict(4)
    assert stage.scheduler.pace.verify.predict(4) == learned_ms == pytest.approx(24.0, rel=0.05)
    stage.takes_ms["slow"] = (SLOW.base_ms, SLOW.row_ms)
    stage.tell(ev.VerifierUp(SLOW))
    assert stage.scheduler.pace.verify.predict(4) == learned_ms, "what was learned is not forgotten"
    stage.ask(8)
    stage.answer(100)
    assert stage.scheduler.pace.verify.predict(4) > stage.model("fast").predict(4) + 2.0


def test_one_that_comes_back_starts_anew() -> None:
    stage = Stage(FAST, SLOW)
    stage.takes_ms["slow"] = (20.0, 1.0)
    stage.ask(4)
    stage.answer(100)
    assert stage.model("slow").predict(2) < SLOW.base_ms
    stage.tell(ev.VerifierUp(SLOW))
    assert stage.model("slow").predict(2) == SLOW.base_ms + 2 * SLOW.row_ms


def pass_ms(facts: ev.VerifierFacts, batch: ev.SendBatch) -> float:
    return facts.base_ms + facts.row_ms * rows(batch)


@pytest.mark.parametrize("room_ms", [3.0, 10.0, 30.0])
def test_a_batch_keeps_to_the_cap_on_its_time_also_where_all_in_one_pass_would_be_cheapest(room_ms: float) -> None:
    """A pass whose fixed part is most of it is shared by all who wait, unless that makes it last too long."""
    facts = ev.VerifierFacts("v", base_ms=100.0, row_ms=2.0)
    stage = Stage(facts, config=SchedulerConfig(batch_ms_max=facts.base_ms + room_ms))
    stage.ask(12, prompt=(1,))
    stage.answer(60)
    assert max(pass_ms(facts, batch) for batch in stage.sent) <= facts.base_ms + room_ms
    if room_ms >= 2 * 12 + 2:
        assert max(len(batch.items) for batch in stage.sent) == 12, "there is no reason to leave anybody out"
    else:
        assert max(len(batch.items) for batch in stage.sent) == room_ms // facts.row_ms


def test_the_cap_on_its_time_is_kept_by_a_slow_verifier_beside_a_fast_one() -> None:
    stage = Stage(FAST, SLOW, config=SchedulerConfig(batch_ms_max=SLOW.base_ms + 3 * SLOW.row_ms))
    stage.ask(16, prompt=(1,))
    stage.answer(300)
    sizes = {name: max(len(batch.items) for batch in stage.sent if batch.verifier == name) for name in stage.takes_ms}
    assert sizes == {"fast": 8, "slow": 3}


def test_trees_are_cut_by_what_rows_cost_at_their_own_verifier() -> None:
    mesh = Mesh(verifiers=("free", "dear"))
    for name, slope_ms in (("free", 0.0), ("dear", 1e3)):
        mesh.scheduler.seats[name].verify = LineModel(base_ms=8.0, slope_ms=slope_ms, weight=1e12)
    texts = [mesh.ask(f"r{number}", (number, 7), 40) for number in range(8)]
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    node_counts = Counter[str]()
    for command in mesh.sent:
        if isinstance(command, ev.SendBatch):
            node_counts[command.verifier] += sum(len(item.tree) for item in command.items)
    assert node_counts["free"] > 10 * node_counts["dear"], "only what is nearly certain is worth a dear row"
