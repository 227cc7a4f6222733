"""Starts a mesh on this machine - store, gateway, scheduler, fusion, drafters, verifiers - and keeps it running until
Ctrl-C or SIGTERM. Without --target and --mesh-file it runs the project's test bed."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_origin

from cosine.cli.checks import check
from cosine.cli.keeper import Peer
from cosine.cli.meshfile import MeshSpec, parse_drafters, read_spec
from cosine.cli.supervisor import Mesh, interrupt_main_task
from cosine.text.command_line import check_file
from cosine.text.masking import mask

ONLY_IN_FILES = ("options", "peer_options")
_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag per key of a mesh, and four of the command's own."""
    parser.add_argument("--mesh-file", type=Path, metavar="FILE", help="YAML file with the same keys; flags win")
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="written once all peers serve: JSON of all peers"
    )
    parser.add_argument(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="one log file per peer; default: a temporary folder, which stays only where something went wrong",
    )
    for name, field in MeshSpec.model_fields.items():
        if name == "drafters":
            parser.add_argument(
                "--drafter", action="append", metavar="NAME=MODEL", help="a drafter; give one flag each"
            )
        elif name not in ONLY_IN_FILES:
            default = "" if field.is_required() or field.default == "" else f" (default: {field.default})"
            parser.add_argument(
                _flag(name), dest=name, metavar=_metavar(field.annotation), help=f"{field.description}{default}"
            )


async def run(arguments: argparse.Namespace) -> int:
    """Runs until a signal comes; raises the MeshError of a mesh that cannot start."""
    spec = read_spec(arguments.mesh_file, given(arguments))
    if arguments.ready_file is not None:
        check_file("--ready-file", arguments.ready_file)
    await check(spec, lambda line: print(line, flush=True))
    mesh = Mesh(spec, arguments.log_dir)
    reporter = Reporter(mesh, arguments.ready_file)
    mesh.on_change = reporter.note
    interrupt_main_task()
    task = asyncio.current_task()
    assert task is not None
    try:
        async with mesh:
            reporter.all_ready()
            await mesh.run()
    except asyncio.CancelledError:
        say("stopped")
        return 0 if reporter.is_complete and task.cancelling() == 1 else 130
    finally:
        reporter.close()
    return 0


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of a mesh that flags name."""
    flags = {name: value for name in MeshSpec.model_fields if (value := getattr(arguments, name, None)) is not None}
    if arguments.drafter:
        flags["drafters"] = parse_drafters(arguments.drafter)
    return flags


class Reporter:
    """Says on standard output what becomes of the peers, and keeps the ready file true: one that an earlier mesh left
    behind goes at once. What cannot be written is logged; the mesh goes on."""

    def __init__(self, mesh: Mesh, ready_file: Path | None) -> None:
        self.is_complete = False
        self._mesh = mesh
        self._ready_file = ready_file
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)

    def note(self, peer: Peer) -> None:
        """A peer has changed."""
        name = f"{peer.role:<10} {peer.peer_id:<16}"
        if peer.state == "serving":
            again = f" (again, pid {peer.pid})" if peer.restart_count else ""
            say(f"{name} ready at {peer.address}{again}")
        elif peer.state == "down":
            say(f"{name} died; starting it again, see {peer.log_path}")
        if self.is_complete and peer.is_serving:
            self._write()

    def all_ready(self) -> None:
        """Every peer serves."""
        self.is_complete = True
        self._write()
        address = self._mesh.gateway_address
        say(f"mesh is up: gateway {address}, logs in {self._mesh.log_dir}; Ctrl-C stops it")
        say(f'try: cosine generate --address {address} "def "')

    def close(self) -> None:
        """The mesh is gone, so is its ready file."""
        if self._ready_file is not None and self.is_complete:
            with _ready_file_errors_logged():
                self._ready_file.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._ready_file is None:
            return
        content = {
            "gateway": self._mesh.gateway_address,
            "redis": mask(self._mesh.redis_url),
            "pid": os.getpid(),
            "log_dir": str(self._mesh.log_dir),
            "peers": [asdict(peer) for peer in self._mesh.peers],
        }
        with _ready_file_errors_logged():
            write_atomically(self._ready_file, json.dumps(content, indent=1) + "\n")


def say(line: str) -> None:
    """Prints a line. Where standard output cannot be written, that is logged, and nothing more is said there."""
    try:
        print(line, flush=True)
    except OSError as error:
        _log.warning("standard output cannot be written, nothing more is said there: %s", error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    number, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextmanager
def _ready_file_errors_logged() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.warning("the ready file cannot be kept true: %s", error)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is not None:
        return "{" + ",".join(str(choice) for choice in annotation.__args__) + "}"
    return {int: "N", float: "SECONDS"}.get(annotation, "TEXT")
