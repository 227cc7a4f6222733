"""A device runs what waits together, in order, and stops what nobody wants."""

from collections.abc import Sequence

from cosine.sim.clock import Clock, Timer
from cosine.sim.device import Device, Job, Run, Unasked


class Bench:
    """A device that takes a second per item, in grains of a quarter, and writes down what happens. After jobs it would
    run `unasked_left` runs of two seconds that only capital sessions want. Its results may `stand`."""

    def __init__(self, unasked_left: int = 0, stand: bool = False) -> None:
        self.unasked_left, self.stand = unasked_left, stand
        self.unasked: list[tuple[float, bool]] = []
        self.clock = Clock()
        self.runs: list[list[str]] = []
        self.closed: list[str] = []
        self.answers: dict[int, tuple[float, list[str]]] = {}
        self.device: Device[str, str] = Device(
            self.clock, self._compute, self._give_up, self._close, self._idle if unasked_left else lambda: None
        )

    def add(self, work_id: int, *sessions: str) -> None:
        def answer(results: list[str], seconds: float) -> None:
            self.answers[work_id] = (self.clock.now, results)

        self.device.add(Job("owner", work_id, frozenset(sessions), sessions, answer))

    def run(self) -> None:
        while self.clock.step():
            pass

    def _compute(self, items: Sequence[str]) -> Run[str]:
        self.runs.append(list(items))
        return Run([item.upper() for item in items], float(len(items)), min(0.25, float(len(items))), self.stand)

    def _give_up(self, items: Sequence[str]) -> list[str]:
        return [""] * len(items)

    def _close(self, session_ids: Sequence[str]) -> None:
        self.closed += session_ids

    def _idle(self) -> Unasked[str] | None:
        if not self.unasked_left:
            return None
        self.unasked_left -= 1
        end = lambda finished: self.unasked.append((self.clock.now, finished))  # noqa: E731  # as short as what it is compared with
        return Unasked(2.0, 0.25, lambda items: all(map(str.isupper, items)), end)


def test_jobs_that_wait_run_together_unless_a_session_comes_twice() -> None:
    bench = Bench()
    for work_id, sessions in enumerate(["a", "bc", "d", "b", "e"]):
        bench.add(work_id, *sessions)
    bench.run()
    assert bench.runs == [["a"], ["b", "c", "d"], ["b", "e"]]
    assert bench.answers == {0: (1.0, ["A"]), 1: (4.0, ["B", "C"]), 2: (4.0, ["D"]), 3: (6.0, ["B"]), 4: (6.0, ["E"])}


def test_a_closing_waits_for_the_jobs_before_it() -> None:
    bench = Bench()
    bench.add(0, "a")
    bench.add(1, "b")
    bench.device.add(Job("owner", 0, frozenset(), (), lambda results, seconds: None, ("b",)))
    bench.add(2, "c")
    assert bench.closed == []
    bench.run()
    assert bench.closed == ["b"]
    assert bench.runs == [["a"], ["b"], ["c"]]


def test_busy_and_idle_make_up_the_time() -> None:
    bench = Bench()
    bench.clock.at(2.0, lambda: bench.add(0, "a", "b"))
    bench.clock.at(7.0, lambda: bench.add(1, "a"))
    bench.clock.at(7.5, lambda: None)
    for _ in range(4):
        bench.clock.step()
    assert bench.clock.now == 7.5
    assert (bench.device.busy_s(), bench.device.idle_s()) == (2.5, 5.0)
    bench.run()
    assert (bench.device.busy_s(), bench.device.idle_s()) == (3.0, 5.0)


def test_a_run_that_serves_nobody_any_more_stops_at_its_next_grain() -> None:
    bench = Bench()
    bench.add(0, "a", "b", "c")
    bench.clock.at(0.6, lambda: bench.device.cancel("owner", [0]))
    bench.run()
    assert bench.answers == {0: (0.75, ["", "", ""])}
    assert bench.device.usage.cancelled_s == 0.75


def test_a_run_that_serves_another_goes_on() -> None:
    bench = Bench()
    bench.add(0, "z")
    bench.add(1, "a")
    bench.add(2, "b")
    bench.clock.at(1.5, lambda: bench.device.cancel("owner", [1]))
    bench.run()
    assert bench.answers[1] == (3.0, [""])
    assert bench.answers[2] == (3.0, ["B"])


def test_what_is_cancelled_before_it_runs_takes_no_time_and_keeps_its_place() -> None:
    bench = Bench()
    for work_id, session in enumerate("abc"):
        bench.add(work_id, session)
    bench.device.cancel("owner", [1])
    bench.device.cancel("somebody else", [2])
    bench.run()
    assert bench.runs == [["a"], ["c"]]
    assert bench.answers == {0: (1.0, ["A"]), 1: (1.0, [""]), 2: (2.0, ["C"])}


def test_results_that_stand_are_answered_to_a_cancelled_job_whose_run_has_ended() -> None:
    answers = {}
    for stand in (False, True):
        bench = Bench(stand=stand)
        bench.add(0, "a")
        bench.add(1, "b", "c")
        bench.clock.at(0.9, lambda bench=bench: bench.device.cancel("owner", [0]))
        bench.clock.at(1.1, lambda bench=bench: bench.device.cancel("owner", [1]))
        bench.run()
        answers[stand] = bench.answers
    assert answers[False] == {0: (1.0, [""]), 1: (1.25, ["", ""])}
    assert answers[True] == {0: (1.0, ["A"]), 1: (1.25, ["", ""])}


def closing(*sessions: str) -> Job[str, str]:
    return Job("owner", 0, frozenset(), (), lambda results, seconds: None, sessions)


def test_after_its_jobs_it_runs_what_nobody_asked_for_until_nothing_is_left() -> None:
    bench = Bench(unasked_left=2)
    bench.clock.at(1.0, lambda: bench.add(0, "a"))
    bench.run()
    assert bench.unasked == [(4.0, True), (6.0, True)]
    assert (bench.device.usage.unasked_s, bench.device.busy_s(), bench.device.idle_s()) == (4.0, 1.0, 5.0)


def test_an_unasked_run_goes_on_for_a_job_that_needs_it_and_is_given_up_for_another() -> None:
    bench = Bench(unasked_left=2)
    bench.add(0, "a")
    bench.clock.at(1.6, lambda: bench.add(1, "A"))
    bench.clock.at(4.6, lambda: bench.add(2, "b"))
    bench.run()
    assert bench.unasked == [(3.0, True), (4.75, False)]
    assert {work_id: time for work_id, (time, _) in bench.answers.items()} == {0: 1.0, 1: 4.0, 2: 5.75}


def test_an_unasked_run_is_given_up_as_soon_as_one_of_those_who_wait_does_not_need_it() -> None:
    bench = Bench(unasked_left=1)
    bench.add(0, "a")
    bench.clock.at(1.1, lambda: bench.add(1, "A"))
    bench.clock.at(1.3, lambda: bench.add(2, "b"))
    bench.run()
    assert bench.unasked == [(1.5, False)]
    assert bench.runs == [["a"], ["A", "b"]]


def test_a_closing_waits_for_an_unasked_run_and_does_not_end_it() -> None:
    bench = Bench(unasked_left=2)
    bench.add(0, "a")
    bench.clock.at(1.5, lambda: bench.device.add(closing("a")))
    bench.clock.at(2.9, lambda: bench.closed.append("not yet"))
    bench.run()
    assert bench.closed == ["not yet", "a"]
    assert bench.unasked == [(3.0, True), (5.0, True)]


def test_a_run_that_takes_no_time_may_be_cancelled() -> None:
    bench = Bench()
    bench.add(0)
    bench.device.cancel("owner", [0])
    bench.run()
    assert bench.answers == {0: (0.0, [])}


def test_only_the_latest_wish_of_a_timer_rings() -> None:
    clock, rings = Clock(), []
    timer = Timer(clock, lambda: rings.append(clock.now))
    for time in (3.0, 1.0, 2.0):
        timer.set(time)
    while clock.step():
        pass
    assert rings == [2.0]
