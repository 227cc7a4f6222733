"""`python -m bench`: what cannot work is one line before anything starts, and Ctrl-C is one line whenever it comes."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from exit_status import status_of

from bench import __main__ as command
from bench.measuring import Baseline, Measured
from bench.measuring import Load as BenchLoad
from bench.report import Report
from cosine.cli.supervisor import interrupt_main_task
from cosine.core.errors import BadRequest, Unavailable


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What is run, without models or processes."""
    runs: list[argparse.Namespace] = []

    async def run(options: argparse.Namespace, *_: object) -> Report:
        runs.append(options)
        report = Report(options.threads, options.tokens)
        report.add(BenchLoad(1, 0.0, 8, 4), "plain", Measured(10.0))
        return report

    monkeypatch.setattr(command, "run", run)
    return runs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "-1"], "1 to 256"),
        (["--tokens", "-4"], "1 to 1024"),
        (["--runs", "0"], "1 or more"),
        (["--prompts", "0"], "1 or more"),
        (["--hidden", "wide"], "1 or more"),
        (["--layers", "0"], "1 or more"),
        (["--device", "foo"], "'foo' is no device; take cpu or cuda[:N]"),
        (["--strategies", " "], "--strategies names none"),
        (["--strategies", "plain nosuch"], "there is no strategy 'nosuch'"),
        (["--strategies", "vanilla:drafter=nosuch"], "drafter 'nosuch'"),
        (["--strategies", "cosine:drafter_count=9"], "needs 9 drafters"),
        (["--json", "/none/x.json"], "--json: there is no folder /none"),
    ],
)
def test_what_cannot_work_is_refused_before_it_runs(
    asked: list[argparse.Namespace], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert status_of(command.main, *words) == 2
    line, newline, rest = capsys.readouterr().err.partition("\n")
    assert line.startswith("bench: ")
    assert said in line
    assert (newline, rest, asked) == ("\n", "", [])


@pytest.mark.parametrize(
    ("strategies", "count"),
    [("plain", 1), ("dsi", 2), ("all", 2), ("plain dsi:verifiers=3", 3), ("dsi:verifiers=1", 1)],
)
def test_as_many_verifiers_are_started_as_a_strategy_asks_for(
    asked: list[argparse.Namespace], strategies: str, count: int
) -> None:
    assert status_of(command.main, "--strategies", strategies) == 0
    assert asked[0].verifiers == count


def test_a_strategy_that_is_named_twice_is_measured_once(asked: list[argparse.Namespace]) -> None:
    assert status_of(command.main, "--strategies", "cosine plain cosine") == 0
    assert asked[0].names == ["plain", "cosine"]


def test_figures_are_printed_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert status_of(command.main, "--json", str(tmp_path / "figures.json")) == 0
    assert "tokens/verdict" in capsys.readouterr().out
    assert '"tokens_per_s": 10.0' in (tmp_path / "figures.json").read_text()


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(*_: object) -> Report:
        interrupt_main_task()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(command, "run", run)
    assert (
        status_of(
            command.main,
        )
        == 130
    )
    assert capsys.readouterr().err == "bench: stopped; nothing was kept\n"


@pytest.mark.parametrize(
    "error",
    [BadRequest("DEVICE", "no CUDA here"), ExceptionGroup("clients", [BadRequest("DEVICE", "no CUDA here")])],
)
def test_what_a_mesh_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    async def run(*_: object) -> Report:
        raise error

    monkeypatch.setattr(command, "run", run)
    assert (
        status_of(
            command.main,
        )
        == 2
    )
    assert capsys.readouterr().err == "bench: no CUDA here\n"


async def test_transformers_that_do_not_start_are_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="--no-baselines"):
        await Baseline.start("target", "assistant", 1, "cpu")


async def test_no_process_is_left_where_its_start_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec cat\n")
    silent.chmod(0o755)
    started: list[asyncio.subprocess.Process] = []
    execute = asyncio.create_subprocess_exec

    async def remember(*words: str, **more: Any) -> asyncio.subprocess.Process:
        started.append(await execute(*words, **more))
        return started[0]

    async def give_up(_: Baseline) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    monkeypatch.setattr(Baseline, "_read", give_up)
    with pytest.raises(asyncio.CancelledError):
        await Baseline.start("target", "assistant", 1, "cpu")
    assert started[0].returncode == -signal.SIGKILL
