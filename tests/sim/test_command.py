"""`python -m cosine.sim` prints a table and writes what it is asked for."""

import json
import sys
from pathlib import Path

import pytest

from cosine.sim import __main__ as command
from cosine.sim import sweep
from cosine.sim.load import closed_load
from cosine.sim.outcome import run
from cosine.sim.peers import Shape
from cosine.sim.plots import plot_rows, plot_sweep
from cosine.sim.report import as_sweep_table, write_sweep_json
from cosine.sim.sweep import Point, control_cost, measure
from tests.sim.parks import RECORDINGS, library, park

ROOT = Path(__file__).parents[2]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The command with its arguments."""
    profile = str(ROOT / "bench" / "profiles" / "paper-70b.yaml")
    fixed = ("--profile", profile, "--recordings", str(RECORDINGS))
    monkeypatch.setattr(sys, "argv", ["cosine.sim", *fixed, *arguments])
    command.main()


def test_it_prints_a_line_per_strategy_and_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "figures" / "sim.json"
    asked = ("--presets", "plain", "cosine", "--loads", "closed-2", "poisson-low", "--json", str(file))
    call(monkeypatch, *asked)
    printed = capsys.readouterr().out
    for word in ("plain", "cosine", "closed-2", "poisson-low", "equal cost"):
        assert word in printed
    rows = json.loads(file.read_text())["rows"]
    assert [(row["strategy"], row["load"]) for row in rows] == [
        ("plain", "closed-2"),
        ("cosine", "closed-2"),
        ("plain", "poisson-low"),
        ("cosine", "poisson-low"),
    ]
    assert rows[1]["tokens_per_s"] > rows[0]["tokens_per_s"]


def test_the_whole_profile_is_slower_for_those_who_do_not_use_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speeds = []
    for name, more in (("same.json", ()), ("as-is.json", ("--as-is",))):
        file = tmp_path / name
        call(monkeypatch, "--presets", "plain", "--loads", "closed-1", "--json", str(file), *more)
        speeds.append(json.loads(file.read_text())["rows"][0]["tokens_per_s"])
    assert speeds[0] > speeds[1]


@pytest.mark.parametrize("asked", [("--presets", "nonsense"), ("--loads", "nonsense")])
def test_what_it_does_not_know_it_refuses(monkeypatch: pytest.MonkeyPatch, asked: tuple[str, str]) -> None:
    with pytest.raises(SystemExit, match="nonsense"):
        call(monkeypatch, *asked)


def test_plots_are_drawn(tmp_path: Path) -> None:
    rows = [run(park(), library(), "plain", closed_load(count, 4, 16))[0] for count in (1, 2)]
    points = [Point("one", count, 1.0, 2.0, 3.0, 0.5, 0.5, 4.0, 5.0, 6.0, 0.0) for count in (1, 10)]
    for path in (*plot_rows(rows, tmp_path), plot_sweep("drafters", points, tmp_path)):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_sweep_is_measured_printed_and_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sweep, "DRAFTER_COUNTS", (2, 5))
    monkeypatch.setattr(sweep, "CELLS", 2)
    monkeypatch.setattr(sweep, "CLIENTS", 2)
    points = list(sweep.drafters(park(), library(), 0))
    assert [point.count for point in points] == [2, 5]
    assert all(point.tokens_per_s > 0 and point.round_us > 0 for point in points)
    file = tmp_path / "sweeps.json"
    write_sweep_json(file, "drafters", points)
    write_sweep_json(file, "requests", points[:1])
    assert [len(entry) for entry in json.loads(file.read_text()).values()] == [2, 1]
    assert as_sweep_table("drafters", points).row_count == 2


def test_the_computing_of_scheduler_and_fusion_is_measured() -> None:
    cost = control_cost(park(), library())
    assert min(cost.scheduler_event_us, cost.fusion_event_us) >= 0
    assert cost.scheduler_item_us + cost.scheduler_event_us > 0
    point = measure("one", 4, park(), library(), closed_load(4, 4, 16), Shape(control=cost))
    assert 0 < point.control_busy < 1
