"""The runner: what is measured, on whose hardware, what is skipped, and what becomes of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import pytest
from made_up_cells import observation

from bench.paper import runner as runners
from bench.paper.__main__ import entrants, parse_arguments
from bench.paper.ablations import ABLATIONS
from bench.paper.cells import Cell, CellFile
from bench.paper.loads import DEFAULT_LOADS, Load, parse_load
from bench.paper.measuring import Observation, Served
from bench.paper.runner import Entrant, Extent, Runner, first_message
from cosine.cli.meshfile import MeshSpec
from cosine.cli.processes import ForkServer
from cosine.core.errors import BadRequest, MeshError, Unavailable
from cosine.core.strategy import PRESETS, parse
from cosine.sim.profile import equal_cost, profile_path, read_profile

PAPER = read_profile(profile_path("paper-70b"))
EXTENT = Extent(token_count=8, prompt_count=1, open_s=2.0, time_scale=8.0, cell_timeout_s=5.0)
SERVED = Served(0.1, 0.8, 8, 4, 4, "text")
CLOSED = (parse_load("closed-1"), parse_load("closed-16"))


class FakeMesh:
    """A mesh that is only asked for its address; remembers what was started."""

    started: ClassVar[list[MeshSpec]] = []
    problem: MeshError | None = None
    gateway_address = "nowhere:1"

    def __init__(self, spec: MeshSpec, forks: ForkServer | None) -> None:
        self._spec = spec

    async def __aenter__(self) -> Self:
        FakeMesh.started.append(self._spec)
        if FakeMesh.problem is not None:
            raise FakeMesh.problem
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class FakeBench:
    """Measures without a mesh; refuses what it is told to."""

    refused: ClassVar[set[str]] = set()
    stuck: ClassVar[set[str]] = set()
    asked: ClassVar[list[tuple[str, str, int]]] = []
    late: ClassVar[float] = 0.0  # passes that overran

    def __init__(self, *_: object) -> None:
        pass

    async def warm_up(self, strategy: str, _load: Load) -> None:
        if strategy in FakeBench.refused:
            raise ExceptionGroup("clients", [BadRequest("TOO_FEW", f"{strategy} wants more")])
        if strategy in FakeBench.stuck:
            await asyncio.Event().wait()

    async def closed(self, strategy: str, load: Load, request_count: int) -> Observation:
        FakeBench.asked.append((strategy, load.name, request_count))
        return observation((SERVED,), 8, 1.0, FakeBench.late)

    async def opened(self, strategy: str, load: Load, times_s: list[float]) -> Observation:
        FakeBench.asked.append((strategy, load.name, len(times_s)))
        return observation((SERVED,), 8, 1.0)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Cell]]:
    """Runs entrants against fakes; the cells that were noted."""
    FakeMesh.started, FakeMesh.problem = [], None
    FakeBench.refused, FakeBench.stuck, FakeBench.asked, FakeBench.late = set(), set(), [], 0.0
    monkeypatch.setattr(runners, "Mesh", FakeMesh)
    monkeypatch.setattr(runners, "Bench", FakeBench)

    def run(
        *work: Entrant, runs: int = 1, again: bool = False, extent: Extent = EXTENT, passes: int | None = None
    ) -> list[Cell]:
        noted: list[Cell] = []
        runner = Runner(PAPER, extent, CellFile(tmp_path / "cells.jsonl"), noted.append)
        asyncio.run(runner.run(work, runs, again))
        keys = {runner.key(entrant, load, run) for entrant in work for load in entrant.loads for run in range(runs)}
        assert {cell.key for cell in noted} == keys
        assert passes in (None, runner.passes_seen)
        return noted

    return run


Measure = Callable[..., list[Cell]]


def test_strategies_of_the_same_hardware_share_a_mesh(measure: Measure) -> None:
    measure(*(Entrant(name, CLOSED[:1]) for name in ("plain", "cosine", "vanilla", "specinfer", "pipeinfer")))
    assert [list(spec.drafters) for spec in FakeMesh.started] == [
        [],
        ["general", "code", "math", "prose", "sql"],
        ["general"],
    ]
    assert [asked[0] for asked in FakeBench.asked] == ["plain", "cosine", "specinfer", "vanilla", "pipeinfer"]


def test_loads_that_need_another_motion_get_a_mesh_of_their_own(measure: Measure) -> None:
    measure(Entrant("plain", CLOSED), Entrant("vanilla", CLOSED), extent=replace(EXTENT, time_scale=None))
    assert len(FakeMesh.started) == 4
    assert [asked[:2] for asked in FakeBench.asked][:2] == [("plain", "closed-1"), ("plain", "closed-16")]
    assert FakeMesh.started[0].pace != FakeMesh.started[1].pace


def test_an_ablation_runs_on_the_hardware_of_the_whole(measure: Measure) -> None:
    lone = "cosine:choice=first"
    measure(Entrant("cosine", CLOSED[:1], park="cosine"), Entrant(lone, CLOSED[:1], park="cosine"))
    assert len(FakeMesh.started) == 1
    measure(Entrant(lone, CLOSED[:1]))
    assert list(FakeMesh.started[-1].drafters) == ["general"]


def test_what_is_finished_is_not_measured_again_unless_asked_for(measure: Measure) -> None:
    first = measure(Entrant("plain", CLOSED[:1]))
    assert measure(Entrant("plain", CLOSED[:1])) == first
    assert len(FakeMesh.started) == len(FakeBench.asked) == 1
    measure(Entrant("plain", CLOSED))
    assert [asked[1] for asked in FakeBench.asked] == ["closed-1", "closed-16"]
    measure(Entrant("plain", CLOSED), again=True)
    assert len(FakeBench.asked) == 4


def test_the_passes_of_cells_that_are_measured_are_counted(measure: Measure) -> None:
    measure(Entrant("plain", CLOSED), passes=100)
    measure(Entrant("plain", CLOSED), passes=0)


def test_beside_what_it_can_replay_the_simulator_says_what_it_makes_of_it(measure: Measure) -> None:
    loads = tuple(map(parse_load, ("closed-2", "closed-2-t1", "open-low")))
    found = {cell.key.load: cell.figures for cell in measure(Entrant("plain", loads))}
    said = {name: None if figures is None else figures.virtual_ms for name, figures in found.items()}
    pass_ms = equal_cost(PAPER, parse("plain")).verifier.forward_ms(2, 0)
    assert pass_ms < (said.pop("closed-2") or 0.0) < 1.5 * pass_ms
    assert said == {"closed-2-t1": None, "open-low": None}


def test_without_recordings_cells_are_measured_all_the_same(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "recorded_library", lambda: None)
    (cell,) = measure(Entrant("plain", CLOSED[:1]))
    assert cell.figures is not None
    assert cell.figures.virtual_ms is None


def test_another_extent_is_another_cell(measure: Measure) -> None:
    measure(Entrant("plain", CLOSED[:1]))
    measure(Entrant("plain", CLOSED[:1]), extent=Extent(9, 1, 2.0, 8.0, 5.0))
    measure(Entrant("plain", CLOSED[:1]), extent=Extent(8, 1, 2.0, 4.0, 5.0))
    measure(Entrant("plain", CLOSED[:1]), extent=replace(EXTENT, run_ahead=True))
    assert len(FakeBench.asked) == 4
    assert [spec.options["drafter"] for spec in FakeMesh.started] == [{}, {}, {}, {"run_ahead": True}]


def test_a_closed_loop_measures_every_domain_equally_and_every_client_once(measure: Measure) -> None:
    measure(Entrant("plain", tuple(parse_load(f"closed-{size}") for size in (1, 4, 5, 16))))
    assert [asked[2] for asked in FakeBench.asked] == [4, 4, 8, 16]


def test_arrivals_are_the_same_for_all_strategies_and_other_in_each_run(measure: Measure) -> None:
    load = (parse_load("open-high"),)
    measure(Entrant("plain", load), Entrant("cosine", load), runs=6)
    counts = [asked[2] for asked in FakeBench.asked]
    assert counts[:6] == counts[6:]
    assert len(set(counts[:6])) > 1


def test_a_refused_strategy_is_a_cell_and_is_tried_again_next_time(measure: Measure) -> None:
    FakeBench.refused = {"dsi"}
    noted = measure(Entrant("dsi", CLOSED), Entrant("plain", CLOSED))
    assert [cell.refused for cell in noted] == ["dsi wants more"] * 2 + [""] * 2
    FakeBench.refused = set()
    assert not any(cell.refused for cell in measure(Entrant("dsi", CLOSED)))


def test_a_cell_in_which_this_machine_was_too_slow_is_measured_again_next_time(measure: Measure) -> None:
    FakeBench.late = 30.0
    (late,) = measure(Entrant("plain", CLOSED[:1]))
    assert late.figures is not None
    assert not late.figures.is_valid
    FakeBench.late = 0.0
    (found,) = measure(Entrant("plain", CLOSED[:1]))
    assert found.figures is not None
    assert found.figures.is_valid
    measure(Entrant("plain", CLOSED[:1]))
    assert len(FakeBench.asked) == 2


def test_a_text_that_is_no_strategy_is_a_refused_cell_without_a_mesh(measure: Measure) -> None:
    noted = measure(Entrant("cosine:colour=red", CLOSED[:1]), Entrant("medusa", CLOSED[:1]))
    assert "colour" in noted[0].refused
    assert "medusa" in noted[1].refused
    assert not FakeMesh.started


def test_a_mesh_that_does_not_start_refuses_its_cells_only(measure: Measure) -> None:
    FakeMesh.problem = Unavailable("MESH_NOT_STARTED", "out of memory")
    noted = measure(Entrant("plain", CLOSED), Entrant("vanilla", CLOSED[:1]))
    assert [cell.refused for cell in noted] == ["out of memory"] * 3


def test_a_cell_that_takes_too_long_is_given_up(measure: Measure) -> None:
    FakeBench.stuck = {"spin"}
    noted = measure(Entrant("spin", CLOSED[:1]), extent=Extent(8, 1, 2.0, 8.0, cell_timeout_s=0.01))
    assert "0.01 s" in noted[0].refused


def test_an_error_that_nobody_foresaw_is_not_swallowed(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ExceptionGroup("clients", [ZeroDivisionError()])

    monkeypatch.setattr(FakeBench, "warm_up", fail)
    with pytest.raises(ExceptionGroup):
        measure(Entrant("plain", CLOSED[:1]))


def test_the_first_of_several_failures_is_told() -> None:
    inner = ExceptionGroup("inner", [BadRequest("A", "first"), BadRequest("B", "second")])
    assert first_message(ExceptionGroup("outer", [inner])) == "first"


def test_by_default_every_preset_meets_every_load() -> None:
    work = entrants(parse_arguments([]))
    assert [entrant.strategy for entrant in work] == list(PRESETS)
    assert {tuple(load.name for load in entrant.loads) for entrant in work} == {DEFAULT_LOADS}


def test_a_first_look_measures_less_unless_told_otherwise() -> None:
    def extent(*arguments: str) -> tuple[int, float, int]:
        options = parse_arguments([*arguments])
        return options.tokens, options.open_s, len(entrants(options)[0].loads)

    assert extent() == (64, 5.0, 8)
    assert extent("--quick") == (12, 0.25, 4)
    assert extent("--quick", "--tokens", "24", "--open-s", "2", "--loads", "closed-3") == (24, 2.0, 1)
    assert extent("--quick", "--ablations") == (12, 0.25, 2)


def test_any_strategys_text_may_be_asked_for() -> None:
    text = "cosine:fusion_interval=1,calibrated=no"
    work = entrants(parse_arguments(["--presets", "plain", text, "--loads", "closed-4"]))
    assert [(entrant.strategy, [load.name for load in entrant.loads]) for entrant in work] == [
        ("plain", ["closed-4"]),
        (text, ["closed-4"]),
    ]


def test_an_unknown_load_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadRequest, match="closed-N"):
        entrants(parse_arguments(["--loads", "stormy"]))


def test_every_ablation_is_a_strategy_on_cosines_hardware() -> None:
    work = entrants(parse_arguments(["--ablations", "--loads", "closed-2"]))
    assert {entrant.park for entrant in work} == {"cosine"}
    for entrant, ablation in zip(work, ABLATIONS, strict=True):
        assert parse(entrant.strategy).name == ablation.strategy
        assert [load.temperature for load in entrant.loads] == [1.0 if ablation.sampled else 0.0]
    assert len({(entrant.strategy, entrant.loads) for entrant in work}) == len(ABLATIONS)
