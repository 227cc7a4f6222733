"""Several schedulers on one verifier whose cache has room for few sessions: each keeps to its share, and all end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from harness import TARGET, plain_text, toy

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.engine.base import EngineLimits
from cosine.engine.verifying import Status, VerifyItem, verify

SESSIONS_MAX = 4
CHUNK = 8
PROMPT_LENGTH = 80
DELIVERIES_MAX = 2000


class Shared:
    """One verifier, schedulers that know nothing of one another, and what gateways are told. Batches are answered in
    the order in which they were sent."""

    def __init__(self, scheduler_count: int, sessions_max: int = SESSIONS_MAX) -> None:
        self.now = 1000.0
        self.engine = toy(TARGET, EngineLimits(sessions_max=sessions_max, tokens_max=512))
        self.schedulers: list[Scheduler] = []
        self.texts: dict[str, list[int]] = {}
        self.ended: list[str] = []
        self.missed_count = 0
        self._batches: deque[tuple[Scheduler, ev.SendBatch]] = deque()
        self._sessions_max = sessions_max
        for _ in range(scheduler_count):
            self.join()

    def join(self) -> Scheduler:
        """One more scheduler; nobody is told how many there are now."""
        prefix = f"s{len(self.schedulers)}"
        config = SchedulerConfig(session_prefix=prefix, prefill_chunk=CHUNK, batch_rows_max=CHUNK, live_max=8)
        scheduler = Scheduler(config)
        self.schedulers.append(scheduler)
        self.tell(scheduler, ev.VerifierUp(ev.VerifierFacts("v", sessions_max=self._sessions_max)))
        return scheduler

    def announce(self) -> None:
        """All learn how many they are."""
        for scheduler in self.schedulers:
            self.tell(scheduler, ev.SchedulersChanged(len(self.schedulers)))

    def ask(self, scheduler: Scheduler, *names: str, strategy: str = "plain") -> None:
        for name in names:
            prompt = self.prompt(name)
            admission = ev.Admission(name, 1, "g", prompt, len(prompt), 12, strategy=strategy)
            self.tell(scheduler, ev.RequestCame(admission))

    def prompt(self, name: str) -> tuple[int, ...]:
        return tuple((ord(name) + place) % 250 for place in range(PROMPT_LENGTH))

    def tell(self, scheduler: Scheduler, *events: ev.Event) -> None:
        self.now += 0.001
        for command in (command for event in events for command in scheduler.handle(event, self.now)):
            match command:
                case ev.SendBatch():
                    self._batches.append((scheduler, command))
                case ev.CloseSession():
                    self.engine.close([command.session_id])
                case ev.Progress():
                    assert command.error is None
                    self.texts.setdefault(command.request_id, []).extend(command.token_ids)
                    if command.finish:
                        self.ended.append(command.request_id)

    def run(self, count: int = DELIVERIES_MAX) -> None:
        """Answers so many batches, or all there are."""
        for _ in range(count):
            if not self._batches:
                return
            scheduler, batch = self._batches.popleft()
            self.tell(scheduler, *self._verdicts(batch), ev.BatchDone(batch.batch_id))

    def _verdicts(self, batch: ev.SendBatch) -> Sequence[ev.VerdictCame]:
        items = [
            VerifyItem(
                its.session_id,
                its.base_length,
                its.token_ids,
                its.tree,
                its.sampling,
                its.prompt_length,
                its.prefill_only,
            )
            for its in batch.items
        ]
        words = []
        for verdict in verify(self.engine, items):
            missed = verdict.status is Status.CACHE_MISS
            self.missed_count += missed
            word = ev.SessionVerdict(
                verdict.session_id, verdict.token_ids, verdict.nodes, verdict.cached_length, missed=missed
            )
            words.append(ev.VerdictCame(batch.batch_id, word))
        return words


def expect_plain_texts(shared: Shared, names: str) -> None:
    assert sorted(shared.ended) == [*names], "the others drive one another out of the cache for ever"
    for name in names:
        assert shared.texts[name] == plain_text(shared.prompt(name), 12)


def test_long_prompts_of_two_schedulers_end_without_driving_one_another_out_of_the_cache() -> None:
    shared = Shared(2)
    shared.announce()
    shared.ask(shared.schedulers[0], *"abcd")
    shared.ask(shared.schedulers[1], *"efgh")
    shared.run()
    expect_plain_texts(shared, "abcdefgh")
    assert shared.missed_count == 0


def test_one_that_holds_all_when_another_comes_finishes_what_it_has_within_its_share() -> None:
    shared = Shared(1)
    shared.ask(shared.schedulers[0], *"abcd")
    shared.run(count=8)
    second = shared.join()
    shared.announce()
    shared.ask(second, *"efgh")
    shared.run()
    expect_plain_texts(shared, "abcdefgh")
    assert [name for name in shared.ended if name in "abcd"] == [*"abcd"], "the last to come are those that wait"
    assert shared.missed_count <= 4, "those of the first that had to wait, once each, and the passes on their way"


def test_streamed_requests_keep_to_the_share_too() -> None:
    shared = Shared(1)
    shared.ask(shared.schedulers[0], *"abcd", strategy="pipeinfer")
    shared.run(count=8)
    second = shared.join()
    shared.announce()
    shared.ask(second, *"efgh", strategy="pipeinfer")
    shared.run()
    expect_plain_texts(shared, "abcdefgh")


def test_the_only_one_left_has_all_the_room_again() -> None:
    shared = Shared(2)
    shared.announce()
    first = shared.schedulers[0]
    shared.ask(first, *"abcd")
    assert len(first.seats["v"].sessions) == 2
    shared.tell(first, ev.SchedulersChanged(1))
    assert len(first.seats["v"].sessions) == 4
    shared.run()
    expect_plain_texts(shared, "abcd")


def test_more_requests_than_places_are_left_to_the_others_and_one_alone_takes_all_it_may() -> None:
    shared = Shared(1)
    first = shared.schedulers[0]
    assert first.room == 8
    shared.tell(first, ev.SchedulersChanged(2))
    assert first.room == 2
    shared.ask(first, "a")
    assert first.room == 1
    shared.tell(first, ev.VerifierDown("v"))
    assert first.room == 7, "without a verifier nobody knows how many places there will be"


def test_a_verifier_that_comes_later_is_shared_too() -> None:
    shared = Shared(2)
    shared.announce()
    first = shared.schedulers[0]
    shared.tell(first, ev.VerifierUp(ev.VerifierFacts("later", sessions_max=6)))
    assert (first.seats["v"].share, first.seats["later"].share, first.room) == (2, 3, 5)


def test_each_has_one_place_where_there_are_more_schedulers_than_sessions() -> None:
    shared = Shared(1)
    shared.tell(shared.schedulers[0], ev.SchedulersChanged(9))
    assert shared.schedulers[0].seats["v"].share == 1
