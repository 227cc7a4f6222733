"""Keeps one peer's process alive: starts it, hears that it is ready, starts it again on the same port when it dies.

The readiness line comes through the process's standard output, its end through the event loop: nothing is polled. What
the process writes goes to a file. Which processes there are, and in which order they stop, is the supervisor's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from cosine.cli.processes import Process, Start, start_fresh
from cosine.cli.roster import Plan
from cosine.core.errors import BadRequest, MeshError

BAD_INPUT_STATUS = 2
START_TRIES = 3
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
STEADY_S = 10.0  # a peer that served this long starts its back-off anew
SHOWN_LINES = 12
SHOWN_BYTES = 8192
REASON_LINE = re.compile(r"([A-Z][A-Z0-9_]+): (.+)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer as its supervisor sees it. `state` is starting, serving, down (between two processes) or stopped."""

    role: str
    peer_id: str
    log_path: str
    state: str = "starting"
    address: str = ""
    pid: int = 0
    model: str = ""
    restart_count: int = 0

    @property
    def is_serving(self) -> bool:
        return self.state == "serving"


class Keeper:
    """The owner of one peer's process. `peer` is what is known of it; `on_change` hears of every change; `start` makes
    its processes."""

    def __init__(
        self,
        plan: Plan,
        variables: Mapping[str, str],
        log_dir: Path,
        on_change: Callable[[Peer], None],
        start: Start = start_fresh,
    ) -> None:
        name = plan.peer_id if plan.peer_id.startswith(plan.role) else f"{plan.role}-{plan.peer_id}"
        self._plan = plan
        self._variables = variables
        self._log_path = log_dir / f"{name}.log"
        self.on_change = on_change
        self._start = start
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._ready_at: float | None = None
        self.peer = Peer(plan.role, plan.peer_id, str(self._log_path))

    async def run(self) -> None:
        """Keeps the peer alive until stopped. Raises MeshError where it never comes to serve."""
        tries, backoff_s = 0, BACKOFF_FIRST_S
        while not self._stopping.is_set():
            status = await self._live()
            tries += 1
            if self._stopping.is_set():
                break
            if not self.peer.address and (status == BAD_INPUT_STATUS or tries >= START_TRIES):
                self._change(state="stopped", pid=0)
                raise self._failure(status)
            backoff_s = BACKOFF_FIRST_S if self._served_long() else backoff_s
            self._change(state="down", pid=0)
            await self._pause(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_LAST_S)
        self._change(state="stopped", pid=0)

    def stop(self) -> None:
        """Asks the process to drain and end; `run` returns when it has."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once, for good."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _live(self) -> int:
        """One process from start to end; returns its exit status."""
        self._ready_at = None
        with self._open_log() as log:
            process = await self._start(self._plan.order(self.peer.address, self._variables), log)
            self._process = process
            self._change(state="starting", pid=process.pid)
            if self._stopping.is_set():  # it was stopped while it was being started
                self._signal(signal.SIGTERM)
            await self._listen(process, log)
            status = await process.wait()
        self._process = None
        return status

    def _open_log(self) -> BinaryIO:
        """What the process writes goes there, or nowhere: it does not end for want of a log."""
        try:
            return self._log_path.open("ab", buffering=0)
        except OSError as error:
            _log.warning("what %s writes is lost: %s", self.peer.peer_id, error)
            return open(os.devnull, "ab", buffering=0)

    async def _listen(self, process: Process, log: BinaryIO) -> None:
        """Reads standard output to its end: the readiness line, and what else a library may print."""
        assert process.stdout is not None
        while line := await _line(process.stdout):
            ready = _readiness(line)
            if ready is None:
                self._note_line(log, line)
                continue
            self._ready_at = asyncio.get_running_loop().time()
            self._change(
                state="serving",
                address=str(ready["address"]),
                model=str(ready.get("model_id", "")),
                restart_count=self.peer.restart_count + bool(self.peer.address),
            )

    def _note_line(self, log: BinaryIO, line: bytes) -> None:
        try:
            log.write(line)
        except OSError as error:
            _log.warning("a line of %s is lost: %s", self.peer.peer_id, error)

    def _change(self, **fields: Any) -> None:
        self.peer = replace(self.peer, **fields)
        self.on_change(self.peer)

    def _served_long(self) -> bool:
        return self._ready_at is not None and asyncio.get_running_loop().time() - self._ready_at > STEADY_S

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _failure(self, status: int) -> MeshError:
        """What the process said last, in its own words where it gave a reason."""
        lines = tail(self._log_path)
        said = REASON_LINE.fullmatch(lines[-1]) if lines else None
        who = f"{self._plan.role} {self._plan.peer_id}"
        if status == BAD_INPUT_STATUS and said is not None:
            return BadRequest(said[1], f"{who}: {said[2]}", {"peer_id": self._plan.peer_id})
        kind = BadRequest if status == BAD_INPUT_STATUS else MeshError
        shown = "\n  ".join(lines) or "nothing"
        return kind(
            "PEER_NOT_STARTED",
            f"{who} {_ended(status)} before it served; it wrote last ({self._log_path}):\n  {shown}",
            {"peer_id": self._plan.peer_id},
        )


def tail(path: Path, line_count: int = SHOWN_LINES) -> list[str]:
    """The last lines of a file, which may be long."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SHOWN_BYTES))
        return file.read().decode(errors="replace").splitlines()[-line_count:]


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is longer than the stream's buffer; empty at the end."""
    try:
        return await stream.readline()
    except ValueError:  # asyncio has dropped the piece
        return b"(a line longer than the buffer)\n"


def _readiness(line: bytes) -> dict[str, object] | None:
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and isinstance(message.get("ready"), dict):
            return dict(message["ready"])
    return None


def _ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
