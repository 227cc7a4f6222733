"""`python -m cosine.sim` prints a table and writes what it is asked for."""

import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import pytest

from cosine.sim import __main__ as command
from cosine.sim import sweep
from cosine.sim.load import closed_load
from cosine.sim.outcome import run
from cosine.sim.peers import Shape
from cosine.sim.plots import plot_rows, plot_sweep
from cosine.sim.report import as_sweep_table, knees
from cosine.sim.sweep import CONTROL, SWEEPS, Point, Trial, control_cost, measure
from tests.sim.parks import RECORDINGS, library, park

ROOT = Path(__file__).parents[2]


def call(*arguments: str) -> int:
    """The command with its arguments; its exit status."""
    profile = str(ROOT / "bench" / "profiles" / "paper-70b.yaml")
    fixed = ("--profile", profile, "--recordings", str(RECORDINGS))
    return command.main([*fixed, *arguments])


def test_it_prints_a_line_per_strategy_and_load(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "sim.json"
    asked = ("--presets", "plain", "cosine", "--loads", "closed-2", "open-low", "--tokens", "32", "--json", str(file))
    assert call(*asked) == 0
    printed = capsys.readouterr().out
    for word in ("plain", "cosine", "closed-2", "open-low", "equal cost"):
        assert word in printed
    rows = json.loads(file.read_text())["rows"]
    assert [(row["strategy"], row["load"]) for row in rows] == [
        ("plain", "closed-2"),
        ("cosine", "closed-2"),
        ("plain", "open-low"),
        ("cosine", "open-low"),
    ]
    assert rows[1]["tokens_per_s"] > rows[0]["tokens_per_s"]


def test_texts_are_as_long_as_asked_and_drafters_run_ahead_where_asked(tmp_path: Path) -> None:
    found = []
    exchanged = "cosine:reading=replace,fusion_interval=1"
    for more in (("--tokens", "16"), ("--tokens", "32"), ("--tokens", "32", "--run-ahead")):
        file = tmp_path / "sim.json"
        call("--presets", exchanged, "--loads", "closed-1", "--json", str(file), *more)
        found.append(json.loads(file.read_text())["rows"][0]["latency_ms"])
    assert found[1] < found[0], "a prompt weighs less in a longer text"
    assert found[2] < found[1], "passes are saved"


def test_the_whole_profile_is_slower_for_those_who_do_not_use_it(tmp_path: Path) -> None:
    speeds = []
    for name, more in (("same.json", ()), ("as-is.json", ("--as-is",))):
        file = tmp_path / name
        call("--presets", "plain", "--loads", "closed-1", "--json", str(file), *more)
        speeds.append(json.loads(file.read_text())["rows"][0]["tokens_per_s"])
    assert speeds[0] > speeds[1]


def test_machines_as_they_are_play_the_presets_that_they_suffice_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--as-is", "--loads", "closed-1", "--tokens", "8") == 0
    printed = capsys.readouterr().out
    assert "cosine" in printed
    assert "dsi" not in printed


@pytest.mark.parametrize("name", ["paper-32b", str(ROOT / "bench" / "profiles" / "paper-32b.yaml")])
def test_a_profile_goes_by_its_name_or_its_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--profile", name, "--presets", "plain", "--loads", "closed-1") == 0
    assert "paper-32b, equal cost" in capsys.readouterr().out


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "table", stop)
    assert call() == 130
    assert capsys.readouterr().err == "cosine.sim: stopped; nothing was kept\n"


def some_point(series: str, count: int, tokens_per_s: float) -> Point:
    """A point of round numbers."""
    return Point(
        series, count, tokens_per_s, 2.0, 3.0, 3.5, 0.5, 0.5, 0.6, 4, 0.1, count, 10.0 * count, 7.0, 8.0, 4.0, 5.0, 6.0
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of few points that take little."""
    for name, value in {
        "DRAFTER_COUNTS": (2, 10),
        "VERIFIER_COUNTS": (1, 2),
        "LIVE_COUNTS": (2, 16, 24),
        "REQUEST_COUNTS": (10, 20, 1_000_000),
        "CELLS": 2,
        "CLIENTS": 2,
        "LIVE_BOUND": 8,
        "TOKENS": 16,
        "DRAFTERS_FIXED": 5,
    }.items():
        monkeypatch.setattr(sweep, name, value)
    monkeypatch.setattr(command, "REQUEST_COUNTS", (10,))


def test_plots_are_drawn_the_same_every_time(tmp_path: Path) -> None:
    rows = [run(park(), library(), "plain", closed_load(count, 4, 16))[0] for count in (1, 2)]
    points = [some_point("one", count, rate) for count, rate in ((1, 5.0), (10, 9.9), (100, 10.0))]
    for name in SWEEPS:
        first = plot_sweep(name, points, tmp_path).read_bytes()
        assert b"<svg" in first
        assert plot_sweep(name, points, tmp_path).read_bytes() == first
    for path in plot_rows(rows, tmp_path, "a-profile"):
        assert "plain" in path.read_text()


def test_a_sweep_says_where_each_series_bends() -> None:
    saturated = [some_point("shared", count, rate) for count, rate in ((1, 5.0), (40, 9.6), (1000, 10.0))]
    growing = [some_point("own", count, rate) for count, rate in ((1, 5.0), (2, 9.0), (4, 15.0))]
    said = knees("verifiers", [*saturated, *growing])
    assert "shared: 95 % of its best from 40 on" in said
    assert "own: still grows; 80 % of the first's throughput per verifier up to 2" in said
    assert as_sweep_table("verifiers", [*saturated, *growing]).row_count == 6
    assert "live^1.00" in knees("live", [some_point("all taken", count, 1.0) for count in (1, 16, 64)])


def test_all_sweeps_are_measured_printed_drawn_and_stored(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small: None
) -> None:
    file = tmp_path / "sweeps.json"
    call("--sweep", "all", "--requests", "20", "--json", str(file), "--plots", str(tmp_path))
    printed = capsys.readouterr().out
    content = json.loads(file.read_text())
    series = {name: [(point["series"], point["count"]) for point in content[name]] for name in SWEEPS}
    assert series["drafters"] == [("shared", 2), ("shared", 10), ("own", 10)]
    assert [entry for entry in series["verifiers"] if entry[0] == "one scheduler"] == [
        ("one scheduler", count) for count in (1, 2)
    ]
    assert series["live"] == [("all taken", 2), ("all taken", 16), ("8 taken", 16), ("all taken", 24), ("8 taken", 24)]
    assert series["requests"] == [("in all", 10), ("in all", 20)]
    for name in SWEEPS:
        assert f"sweep over {name}" in printed
        assert (tmp_path / f"scaling-{name}.svg").exists()
    assert {point["live_count"] for point in content["live"] if point["series"] == "8 taken"} == {8}
    assert all(point["scheduler_kb"] > 0 and point["round_us"] > 0 for name in SWEEPS for point in content[name])


def test_a_sweep_goes_on_where_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, small: None
) -> None:
    measured: list[tuple[str, int]] = []

    def measure_two(trial: Trial, *more: Any) -> Point:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append((trial.series, trial.count))
        return measure(trial, *more)

    file = tmp_path / "sweeps.json"
    asked = ("--sweep", "drafters", "--json", str(file))
    monkeypatch.setattr(command, "measure", measure_two)
    assert call(*asked) == 130
    said = "cosine.sim: stopped; the points that are done are kept, the same command goes on\n"
    assert capsys.readouterr().err == said
    before = json.loads(file.read_text())["drafters"]
    assert [(point["series"], point["count"]) for point in before] == measured
    measured.clear()
    assert call(*asked) == 0
    assert measured == [("own", 10)]
    assert json.loads(file.read_text())["drafters"][:2] == before


def test_only_the_sweeps_own_file_gets_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("--sweep", "requests", "--requests", "10", "--json", "mistyped/sweeps.json") == 2
    assert not list(tmp_path.iterdir())
    assert call("--sweep", "requests", "--requests", "10") == 0
    assert (tmp_path / "build" / "sweeps.json").is_file()


def test_points_of_other_code_or_another_seed_are_put_aside(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small: None
) -> None:
    file = tmp_path / "sweeps.json"
    asked = ("--sweep", "requests", "--requests", "10", "--json", str(file))
    contents = []
    for seed in ("0", "0", "1"):
        call(*asked, "--seed", seed)
        contents.append(json.loads(file.read_text())["requests"])
    assert contents[0] == contents[1]
    assert contents[0][0]["latency_ms"] != contents[2][0]["latency_ms"]
    assert json.loads((tmp_path / "sweeps.before.json").read_text())["requests"] == contents[0]
    assert "other code or settings" in capsys.readouterr().out


def test_a_trial_is_the_same_every_time_but_for_what_is_measured(small: None) -> None:
    for name in SWEEPS:
        trial = SWEEPS[name](park(), 20, CONTROL)[-1]
        first, second = (astuple(measure(trial, library())) for _ in range(2))
        virtual = [field.name for field in fields(Point)].index("live_count") + 1
        assert first[:virtual] == second[:virtual]


def test_the_computing_of_scheduler_and_fusion_is_measured(small: None) -> None:
    cost = control_cost(park(), library())
    assert min(cost.scheduler_event_us, cost.fusion_event_us) >= 0
    assert cost.scheduler_item_us + cost.scheduler_event_us > 0
    trial = Trial("one", 4, park(), closed_load(4, 4, 16), Shape(control=cost))
    assert 0 < measure(trial, library()).control_busy < 1
