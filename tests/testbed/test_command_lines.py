"""The test bed's commands: what is misspelt is one line, before anything is trained or loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from testbed import __main__ as training
from testbed import evaluate, inflate, models, recording
from testbed.recipe import MODELS_DIR

Command = Callable[[Sequence[str]], int]


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be trained or loaded."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("it works")

    monkeypatch.setattr(training, "Pipeline", work)
    monkeypatch.setattr(models, "load", work)
    monkeypatch.setattr(inflate.LlamaForCausalLM, "from_pretrained", work)


def refusal(capsys: pytest.CaptureFixture[str], command: Command, *words: str) -> str:
    """What is said of the command line: one line, with exit status 2."""
    try:
        status = command(words)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    assert status == 2
    said, newline, rest = capsys.readouterr().err.partition("\n")
    assert (newline, rest) == ("\n", "")
    return said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--redo", "nosuch"], "invalid choice: 'nosuch' (choose from 'pretrained', 'target', 'lessons-code'"),
        (["--redo", "target", "drafter-sq"], "invalid choice: 'drafter-sq'"),
        (["--threads", "0"], "1 or more"),
        (["--factor", "0"], "above 0"),
    ],
)
def test_a_misspelt_stage_starts_no_training(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert said in refusal(capsys, training.main, *words)


def test_every_stage_that_leaves_a_file_can_be_redone() -> None:
    lessons = ["lessons-code", "lessons-prose", "lessons-math", "lessons-sql"]
    drafters = ["drafter-general", "drafter-code", "drafter-prose", "drafter-math", "drafter-sql"]
    assert list(training.STAGES) == ["pretrained", "target", *lessons, "general", *drafters]


@pytest.mark.parametrize(
    ("command", "words", "folder"),
    [
        (evaluate.main, ["--models", "nosuch"], "nosuch/target"),
        (recording.main, ["--models", "nosuch"], "nosuch/target"),
        (inflate.main, ["--source", "nosuch", "--out", ".", "--hidden", "768", "--layers", "12"], "nosuch"),
    ],
)
def test_a_folder_without_a_model_is_named(
    capsys: pytest.CaptureFixture[str], command: Command, words: list[str], folder: str
) -> None:
    assert f"there is no model in {folder} (no config.json)" in refusal(capsys, command, *words)


def test_a_drafter_that_is_missing_is_told_before_the_target_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "config.json").touch()
    for command in (evaluate.main, recording.main):
        assert "drafter-general" in refusal(capsys, command, "--models", str(tmp_path))


def test_a_twin_smaller_than_its_model_is_refused_before_weights_are_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--source", str(MODELS_DIR / "target"), "--out", str(tmp_path / "twin")]
    said = refusal(capsys, inflate.main, *words, "--hidden", "100", "--layers", "12")
    assert "hidden 256, layers 4" in said
    assert not list(tmp_path.iterdir())
