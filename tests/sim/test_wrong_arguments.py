"""`python -m cosine.sim` with arguments that name nothing, or do nothing: one line that says which, before it plays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosine.sim import __main__ as command
from tests.sim.parks import RECORDINGS

PROFILE = Path(__file__).parents[2] / "bench" / "profiles" / "paper-70b.yaml"


@pytest.fixture(autouse=True)
def unplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be played."""

    def play(*_: object) -> None:
        raise AssertionError("it plays")

    for name in ("table", "_sweep"):
        monkeypatch.setattr(command, name, play)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of the command line: one line, with exit status 2."""
    try:
        status = command.main(["--profile", str(PROFILE), "--recordings", str(RECORDINGS), *words])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    assert status == 2
    said, newline, rest = capsys.readouterr().err.partition("\n")
    assert (newline, rest) == ("\n", "")
    assert said.startswith("cosine.sim: ")
    return said


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
def test_what_is_not_there_is_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert said in refusal(capsys, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--presets", "plain", "vanilla:drafter=nosuch"], "drafter 'nosuch', which the mesh does not have"),
        (["--presets", "cosine:drafter_count=9"], "needs 9 drafters"),
        (["--as-is", "--presets", "dsi"], "needs 2 verifiers"),
    ],
)
def test_a_strategy_that_demands_what_the_park_has_not(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refusal(capsys, *words)


def test_a_drafter_that_was_not_recorded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    stranger = tmp_path / "profile.yaml"
    stranger.write_text(PROFILE.read_text().replace("\n  sql:", "\n  poetry:"))
    said = refusal(capsys, "--profile", str(stranger))
    assert "have no drafter 'poetry'; they have general, code, prose, math, sql" in said


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "", "-x"])
def test_a_profile_whose_name_is_no_name_for_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(PROFILE.read_text().replace("name: paper-70b", f"name: {name!r}"))
    assert f"{file}: name: {name!r} is no name" in refusal(capsys, "--profile", str(file))


@pytest.mark.parametrize("flag", ["--json", "--plots"])
@pytest.mark.parametrize("sweep", [(), ("--sweep", "live")])
def test_a_place_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str, sweep: tuple[str, ...]
) -> None:
    assert f"{flag}: there is no folder " in refusal(capsys, flag, str(tmp_path / "none" / "x"), *sweep)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--requests", "1000"],
        ["--requests", "1000", "--sweep", "live"],
        ["--measure-control"],
        ["--measure-control", "--sweep", "drafters"],
        ["--presets", "plain", "--sweep", "live"],
        ["--loads", "closed-1", "--sweep", "all"],
        ["--temperature", "1", "--sweep", "live"],
        ["--ablations", "--sweep", "live"],
        ["--as-is", "--sweep", "live"],
        ["--presets", "plain", "--ablations"],
    ],
)
def test_a_flag_that_would_do_nothing(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert words[0] in refusal(capsys, *words)


@pytest.mark.parametrize("count", ["0", "-1", "99", "many"])
def test_requests_that_no_sweep_begins_with(capsys: pytest.CaptureFixture[str], count: str) -> None:
    assert "100 or more" in refusal(capsys, "--sweep", "requests", "--requests", count)
