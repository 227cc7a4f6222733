"""The `cosine` command: finds the subcommand and is the border where errors become one line and an exit status.

Exit status 0: done; 2: the input is wrong; 1: anything else; 130: interrupted. Each subcommand is a module with
`add_arguments` and an async `run`, imported only when it is called.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from cosine.core.errors import BadRequest, MeshError, Mismatch, NotFound

COMMANDS = {
    "up": "start a mesh on this machine and keep it running",
    "generate": "stream the target's continuation of a prompt",
    "peers": "list the peers of a running mesh",
}
WRONG_INPUT = (BadRequest, Mismatch, NotFound)
OUR_PACKAGES = ("cosine", "services")


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others."""

    def error(self, message: str) -> NoReturn:
        raise BadRequest("USAGE", f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except MeshError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 2 if isinstance(error, WRONG_INPUT) else 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has left
            said = str(error) or type(error).__name__
            print(f"OS_ERROR: {said}; if that is the output, send it elsewhere", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of the output goes there
        return 1
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise BadRequest("USAGE", f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
    command = _load(name)
    parser = Parser(prog=f"cosine {name}", description=command.__doc__)
    command.add_arguments(parser)
    status: int = asyncio.run(command.run(parser.parse_args(words[1:])))
    return status


def _load(name: str) -> ModuleType:
    """The module of a subcommand. Raises Mismatch where a package that it imports is not installed."""
    try:
        return importlib.import_module(f"cosine.cli.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in OUR_PACKAGES:
            raise
        raise Mismatch(
            "EXTRA_MISSING",
            f"`cosine {name}` needs {package}, which this Python lacks; pip install 'cosine-mesh[mesh,engine]' "
            "(without extras, cosine-mesh is the client alone)",
            {"package": package},
        ) from error


def _usage() -> str:
    rows = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    return f"usage: cosine COMMAND ...\n\n{rows}\n\n`cosine COMMAND --help` lists a command's flags."


if __name__ == "__main__":
    sys.exit(main())
