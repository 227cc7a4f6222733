"""A device runs what waits together, in order, and stops what nobody wants."""

from collections.abc import Sequence

from cosine.sim.clock import Clock, Timer
from cosine.sim.device import Device, Job, Run


class Bench:
    """A device that takes a second per item, in grains of a quarter, and writes down what happens."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runs: list[list[str]] = []
        self.closed: list[str] = []
        self.answers: dict[int, tuple[float, list[str]]] = {}
        self.device: Device[str, str] = Device(self.clock, self._compute, self._give_up, self._close)

    def add(self, work_id: int, *sessions: str) -> None:
        def answer(results: list[str], seconds: float) -> None:
            self.answers[work_id] = (self.clock.now, results)

        self.device.add(Job("owner", work_id, frozenset(sessions), sessions, answer))

    def run(self) -> None:
        while self.clock.step():
            pass

    def _compute(self, items: Sequence[str]) -> Run[str]:
        self.runs.append(list(items))
        return Run([item.upper() for item in items], float(len(items)), 0.25)

    def _give_up(self, items: Sequence[str]) -> list[str]:
        return [""] * len(items)

    def _close(self, session_ids: Sequence[str]) -> None:
        self.closed += session_ids


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


def test_only_the_latest_wish_of_a_timer_rings() -> None:
    clock, rings = Clock(), []
    timer = Timer(clock, lambda: rings.append(clock.now))
    for time in (3.0, 1.0, 2.0):
        timer.set(time)
    while clock.step():
        pass
    assert rings == [2.0]
