"""`python -m bench.paper`: what can never be measured is refused before anything starts; no report takes another's
place; Ctrl-C is one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from exit_status import status_of
from made_up_cells import cell

from bench.paper import __main__ as command
from bench.paper.cells import Cell
from cosine.cli.supervisor import interrupt_main_task

PROFILES = Path(__file__).resolve().parents[2] / "bench" / "profiles"


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strategies that are measured, without a mesh."""
    names: list[str] = []

    async def measure(_options: object, _profile: object, work: list[command.Entrant], *_: object) -> list[Cell]:
        names.extend(entrant.strategy for entrant in work)
        return [cell(entrant.strategy) for entrant in work]

    monkeypatch.setattr(command, "measure", measure)
    return names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--presets", "plain", "cosin"], "there is no strategy 'cosin'"),
        (["--presets", "vanilla:drafter=nosuch"], "drafter 'nosuch'"),
        (["--presets", "cosine:drafter_count=9"], "needs 9 drafters"),
        (["--loads", "stormy"], "closed-N"),
        (["--profile", "nosuch"], "cannot read nosuch"),
        (["--runs", "0"], "1 or more"),
        (["--runs", "-1"], "1 or more"),
        (["--tokens", "0"], "1 or more"),
        (["--prompts", "-1"], "1 or more"),
        (["--open-s", "0"], "above 0"),
        (["--time-scale", "nan"], "above 0"),
        (["--cell-timeout-s", "-1"], "above 0"),
        (["--out", __file__], "is a file; name a folder"),
        (["--out", "/none/deep"], "there is no folder /none"),
    ],
)
def test_what_can_never_be_measured_is_refused_before_it_starts(
    measured: list[str], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert status_of(command.main, *words) == 2
    line, newline, rest = capsys.readouterr().err.partition("\n")
    assert line.startswith("bench.paper: ")
    assert said in line
    assert (newline, rest, measured) == ("\n", "", [])


def test_a_strategy_that_is_named_twice_is_measured_once(measured: list[str], tmp_path: Path) -> None:
    assert status_of(command.main, "--presets", "spin", "plain", "spin", "--out", str(tmp_path)) == 0
    assert measured == ["spin", "plain"]


def test_a_first_look_leaves_the_whole_runs_report_alone(tmp_path: Path) -> None:
    assert status_of(command.main, "--out", str(tmp_path)) == 0
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path).parts[0] for path in whole} == {"report.json", "report"}
    assert status_of(command.main, "--out", str(tmp_path), "--quick", "--presets", "cosine") == 0
    assert {path: path.read_bytes() for path in whole} == whole
    looked = json.loads((tmp_path / "quick.json").read_text())
    assert [row["strategy"] for row in looked["rows"]] == ["cosine"]
    assert list((tmp_path / "quick").iterdir())


def test_a_first_look_at_ablations_has_a_name_of_its_own() -> None:
    names = [
        command.report_name(command.parse_arguments(list(words)))
        for words in ((), ("--quick",), ("--ablations",), ("--quick", "--ablations"))
    ]
    assert names == ["report", "quick", "ablations", "quick-ablations"]


def test_figures_of_other_code_are_said_to_be_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert status_of(command.main, "--presets", "plain", "spin", "--out", str(tmp_path)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    said = "other code than today's measured 2 of 2 cells (1 of plain, 1 of spin); --again measures all anew"
    assert said in printed


def test_ctrl_c_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def measure(*_: object) -> list[Cell]:
        interrupt_main_task()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(command, "measure", measure)
    assert status_of(command.main, "--out", str(tmp_path)) == 130
    said = "bench.paper: stopped; what has been measured is kept, the same command goes on\n"
    assert capsys.readouterr().err == said
