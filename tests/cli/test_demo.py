"""The demo: a whole run with toys, and the judgement of texts on its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from process_table import DEADLINE_S, PROJECT_ROOT, alive, environment

from cosine.cli.demo.measuring import BF16_MARGIN, FAILED, IDENTICAL, WITHIN_MARGIN, Likeness, Run, likeness
from cosine.cli.demo.models import Prompt, toy_prompts, toy_spec
from cosine.cli.demo.report import Pair, Report, Row
from cosine.client.async_client import AsyncClient
from cosine.client.results import Logprobs, Speculation

PROMPT = Prompt("code", "def", (1, 2))


def run_of(*tokens: int, speculation: Speculation = Speculation()) -> Run:
    return Run(PROMPT, tokens, 2.0, speculation)


class Target:
    """Answers the one question that `likeness` asks: what the target rates best after some tokens."""

    def __init__(self, **best: float) -> None:
        self.contexts: list[tuple[int, ...]] = []
        self._top = tuple((int(token.removeprefix("t")), value) for token, value in best.items())

    async def complete(self, prompt: tuple[int, ...], **options: Any) -> SimpleNamespace:
        assert options["strategy"] == "plain"
        assert options["max_new_tokens"] == 1
        self.contexts.append(prompt)
        return SimpleNamespace(logprobs=(Logprobs(self._top[0][1], self._top),))


async def judged(target: Target, text: Run, plain: Run, margin: float = BF16_MARGIN) -> Likeness:
    return await likeness(cast(AsyncClient, target), text, plain, margin)


async def test_equal_texts_are_identical_without_asking() -> None:
    target = Target()
    assert (await judged(target, run_of(5, 6), run_of(5, 6))).kind == IDENTICAL
    assert target.contexts == []


@pytest.mark.parametrize(
    ("second_best", "margin", "kind"),
    [(-0.8, BF16_MARGIN, WITHIN_MARGIN), (-1.1, BF16_MARGIN, FAILED), (-0.8, 0.0, FAILED), (-0.7, 0.0, WITHIN_MARGIN)],
)
async def test_texts_that_part_are_judged_by_the_target(second_best: float, margin: float, kind: str) -> None:
    target = Target(t6=-0.7, t7=second_best)
    found = await judged(target, run_of(5, 7, 9), run_of(5, 6, 8), margin)
    assert (found.kind, found.position) == (kind, 1)
    assert target.contexts == [(1, 2, 5)]


async def test_a_token_that_is_not_among_the_best_fails() -> None:
    assert (await judged(Target(t6=-0.7, t8=-0.7), run_of(5, 7), run_of(5, 6))).kind == FAILED


async def test_a_text_that_breaks_off_fails() -> None:
    assert (await judged(Target(), run_of(5), run_of(5, 6))).kind == FAILED


def test_a_row_adds_up_its_runs_and_tells_the_worst() -> None:
    figures = Speculation("cosine", round_count=2, accepted_token_count=4, drafters=("code", "sql"))
    mesh = run_of(*range(6), speculation=figures)
    pairs = [Pair(mesh, run_of(*range(6)), Likeness(kind)) for kind in (IDENTICAL, WITHIN_MARGIN)]
    row = Row("code", pairs, seconds=2.0, plain_seconds=4.0)
    assert (row.tokens, row.tokens_per_s, row.ratio, row.acceptance_length) == (12, 6.0, 2.0, 3.0)
    assert row.drafters == ["code", "sql"]
    assert row.text == WITHIN_MARGIN
    assert Report(pairs, row, BF16_MARGIN).is_fine
    assert not Report([Pair(mesh, mesh, Likeness(FAILED, 3))], row, BF16_MARGIN).is_fine


def test_toy_prompts_reach_every_domain_in_turn() -> None:
    prompts = toy_prompts(toy_spec().target, 2)
    assert [prompt.token_ids[0] % 4 for prompt in prompts] == [0, 1, 2, 3] * 2


def test_the_whole_demo_with_toys_is_fine(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    demo = _demo("--toy", "--tokens=16", "--prompts=1", f"--json={figures}")
    shown, complaints = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 0, (shown, complaints)
    assert "every text is plain decoding's" in shown
    report = json.loads(figures.read_text())
    assert [row["prompts"] for row in report["rows"]] == ["code", "prose", "math", "sql", "all", "8 at once"]
    assert all(row["text"] == IDENTICAL and row["token_count"] for row in report["rows"])
    assert any(row["drafters"] for row in report["rows"]), "toys are fast: drafting need not pay, but is tried"
    assert report["margin_nats"] == 0


def test_figures_that_cannot_be_written_are_refused_before_the_demo_starts(tmp_path: Path) -> None:
    demo = _demo("--toy", f"--json={tmp_path / 'absent' / 'figures.json'}")
    shown, complaints = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, shown) == (1, "")
    assert complaints == f"USAGE: --json: there is no folder {tmp_path / 'absent'}; make it, or name another\n"


def test_an_interrupted_demo_leaves_no_process() -> None:
    demo = _demo("--toy")
    assert demo.stdout is not None
    pids = []
    for line in demo.stdout:
        if " pid " in line:
            pids.append(int(line.split()[-1]))
        if len(pids) == 3:
            break
    os.kill(demo.pid, signal.SIGINT)
    demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 130
    assert alive(pids) == []


def _demo(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cosine.cli.demo", *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=PROJECT_ROOT, env=environment())
