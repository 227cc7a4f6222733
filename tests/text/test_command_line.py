"""What ends a command is one line and a status; numbers and places are looked at before anything starts."""

from __future__ import annotations

import asyncio
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from cosine.core.errors import BadRequest, MeshError, NotFound, Unavailable
from cosine.text.command_line import Parser, bordered, check_file, check_folder, positive, whole


def ended_by(error: BaseException) -> int:
    """The status of a command that ends with an error."""

    def run() -> int:
        raise error

    return bordered("sums", run, "stopped; half is kept")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("A", "give a number"), 2),
        (NotFound("A", "give a number"), 2),
        (Unavailable("A", "give a number"), 1),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [MeshError("A", "give a number")]), MeshError("B", "x")]), 1),
    ],
)
def test_an_error_is_its_message_and_a_status(
    capsys: pytest.CaptureFixture[str], error: Exception, status: int
) -> None:
    assert ended_by(error) == status
    assert capsys.readouterr().err == "sums: give a number\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_ctrl_c_says_what_becomes_of_the_work(capsys: pytest.CaptureFixture[str], error: BaseException) -> None:
    assert ended_by(error) == 130
    assert capsys.readouterr().err == "sums: stopped; half is kept\n"


@pytest.mark.parametrize("error", [ValueError(), ExceptionGroup("tasks", [MeshError("A", "a"), ValueError()])])
def test_what_nobody_foresaw_is_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error)):
        ended_by(error)


def test_a_command_that_ends_by_itself_keeps_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert bordered("sums", lambda: 7, "stopped") == 7
    assert capsys.readouterr().err == ""


def test_numbers_are_within_their_bounds() -> None:
    assert [whole(1, 3)(text) for text in "123"] == [1, 2, 3]
    assert whole()("1000000") == 1000000
    assert positive("0.25") == 0.25
    for text in ("0", "4", "-1", "2.5", "", "two"):
        with pytest.raises(ArgumentTypeError, match="1 to 3"):
            whole(1, 3)(text)
    for text in ("0", "-1", "nan", "inf", "", "two"):
        with pytest.raises(ArgumentTypeError, match="above 0"):
            positive(text)


def test_a_parser_complains_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="sums")
    parser.add_argument("--count", type=whole())
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--count", "none"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "sums: argument --count: 'none' does not do; give a whole number, 1 or more; see --help\n"
    )


def test_a_place_to_write_is_there_or_can_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    check_file("--json", file)
    check_file("--json", tmp_path / "fresh")
    check_folder("--plots", tmp_path)
    check_folder("--plots", tmp_path / "fresh")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "x", "no folder"),
        (file / "x", "no folder"),
        (Path("/proc/x"), "/proc cannot be written"),
    ):
        with pytest.raises(BadRequest, match=said):
            check_file("--json", path)
    for path, said in (
        (file, "is a file"),
        (tmp_path / "none" / "x", "no folder"),
        (Path("/proc"), "cannot be written"),
    ):
        with pytest.raises(BadRequest, match=said):
            check_folder("--plots", path)
