"""`python -m cosine.sim` with arguments that name nothing: one line that says which."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cosine.sim import __main__ as command

PROFILE = Path(__file__).parents[2] / "bench" / "profiles" / "paper-70b.yaml"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recordings", "/none"], "cannot read /none/greedy.npz (No such file or directory); name a folder with --r"),
        (["--recordings", "/none", "--temperature", "1"], "cannot read /none/shared.npz (No such file or directory)"),
        (["--recordings", "/none", "--sweep", "live"], "cannot read /none/greedy.npz (No such file or directory)"),
        (["--recordings", str(PROFILE)], f"cannot read {PROFILE}/greedy.npz (Not a directory)"),
        (["--profile", "/none.yaml"], "cannot read /none.yaml: No such file or directory"),
        (["--presets", "nope"], "nope"),
        (["--loads", "nope"], "there is no load 'nope'"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["cosine.sim", "--profile", str(PROFILE), *words])
    with pytest.raises(SystemExit) as caught:
        command.main()
    line = str(caught.value.code)
    assert line.startswith("cosine.sim: ")
    assert said in line
    assert "\n" not in line
