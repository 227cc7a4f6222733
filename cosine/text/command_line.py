"""What the project's commands share: numbers, files and folders are checked before anything starts, and whatever ends
a command early becomes one line on standard error and an exit status.

Knows no command. Exit status 2: the input is wrong; 1: anything else; 130: interrupted, as of `cosine`.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cosine.core.errors import BadRequest, MeshError, Mismatch, NotFound

WRONG_INPUT = (BadRequest, Mismatch, NotFound)
INTERRUPTED = 130


class Parser(ArgumentParser):
    """Complains in one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def bordered(name: str, run: Callable[[], int], stopped: str) -> int:
    """What `run` returns, or the status of what ended it: a MeshError, a task group's first, or Ctrl-C. `stopped` says
    what becomes of what has been done until then."""
    try:
        return run()
    except MeshError as error:
        return _told(name, error)
    except ExceptionGroup as errors:
        known, others = errors.split(MeshError)
        if known is None or others is not None:
            raise
        return _told(name, _first(known))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print(f"{name}: {stopped}", file=sys.stderr)
        return INTERRUPTED


def _told(name: str, error: MeshError) -> int:
    print(f"{name}: {error.message}", file=sys.stderr)
    return 2 if isinstance(error, WRONG_INPUT) else 1


def _first(errors: ExceptionGroup[MeshError]) -> MeshError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A type for argparse: whole numbers within bounds, both included."""
    bounds = f"{least} or more" if most is None else f"{least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"{text!r} does not do; give a whole number, {bounds}")
        return value

    return read


def positive(text: str) -> float:
    """A type for argparse: a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} does not do; give a number above 0")
    return value


def check_file(flag: str, path: Path) -> None:
    """Raises BadRequest where no file can be written at this path."""
    if path.is_dir():
        raise BadRequest("USAGE", f"{flag}: {path} is a folder; name a file")
    _check_writable(flag, path.absolute().parent)


def check_folder(flag: str, path: Path) -> None:
    """Raises BadRequest where this is no folder to write into, nor one to make in a folder that is there."""
    if path.exists() and not path.is_dir():
        raise BadRequest("USAGE", f"{flag}: {path} is a file; name a folder")
    _check_writable(flag, path if path.is_dir() else path.absolute().parent)


def _check_writable(flag: str, folder: Path) -> None:
    if not folder.is_dir():
        raise BadRequest("USAGE", f"{flag}: there is no folder {folder}; make it, or name another")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadRequest("USAGE", f"{flag}: {folder} cannot be written ({error.strerror}); name another") from error
