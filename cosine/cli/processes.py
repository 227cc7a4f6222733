"""Processes of peers: a fresh Python, or a fork of one that has imported the engine already, where that saves time.

Both end with us, whatever becomes of us, and both look alike to whoever keeps them. A fork that cannot be had is no
error: then the process is a fresh one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import BinaryIO, Protocol

from cosine.cli import forkserver, launch
from cosine.cli.forkserver import ORDER_BYTES_MAX, Order

Start = Callable[[Order, BinaryIO], Awaitable["Process"]]

# What `services.drafter` and `services.verifier` import where their model is a real one.
ENGINE_MODULES = (
    "services.drafter.service",
    "services.verifier.service",
    "cosine.peer.model_service",
    "cosine.engine.transformers_engine",
)
_log = logging.getLogger(__name__)


class Process(Protocol):
    """A running process; `asyncio.subprocess.Process` is one."""

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> asyncio.StreamReader | None: ...

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError where it has ended."""
        ...

    async def wait(self) -> int:
        """Its exit status, the negative number of a signal where one has ended it."""
        ...


def launched(*command: str) -> list[str]:
    """A command line whose program ends with us."""
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *command]


def module_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a module."""
    return [sys.executable, "-m", module, *arguments]


async def start_fresh(order: Order, errors: BinaryIO) -> Process:
    """Runs a module in a Python of its own. What it writes as errors goes to `errors`."""
    return await asyncio.create_subprocess_exec(
        *launched(*module_command(order.module, order.arguments)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=errors,
        env=order.environment,
        start_new_session=True,  # Ctrl-C in a terminal is for the supervisor alone
    )


class Forked:
    """A process that the fork server has made for us."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, report: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout: asyncio.StreamReader | None = stdout
        self._status = asyncio.ensure_future(_number(report))

    def send_signal(self, number: int) -> None:
        if self._status.done():
            raise ProcessLookupError(f"process {self.pid} has ended")
        os.kill(self.pid, number)

    async def wait(self) -> int:
        status = await asyncio.shield(self._status)
        # without a status the server was killed, and the kernel has ended what it had forked
        return -signal.SIGKILL if status is None else status


class ForkServer:
    """A process that has imported `modules`, and forks. It is begun at once, and imports while we go on."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        # the kernel doubles it: what can be sent can be read
        self._orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ORDER_BYTES_MAX // 2)
        self._turn = asyncio.Lock()  # one order at a time: a socket holds few, and a server that imports takes none
        with theirs:
            self._process = subprocess.Popen(
                launched(*module_command(forkserver.__name__, [str(theirs.fileno()), *modules])),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self, order: Order, errors: BinaryIO) -> Process:
        """As `start_fresh`, but forked where that can be."""
        return await self._fork(order, errors) or await start_fresh(order, errors)

    def close(self) -> None:
        """Ends the server, and whatever it has forked that still runs."""
        self._orders.close()
        self._process.kill()
        self._process.wait()

    async def _fork(self, order: Order, errors: BinaryIO) -> Process | None:
        """None where the server is gone, or cannot fork."""
        async with self._turn:
            stdout, their_stdout = await _pipe()
            report, their_report = await _pipe()
            try:
                descriptors = [their_stdout, errors.fileno(), their_report]
                socket.send_fds(self._orders, [order.encoded()], descriptors)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    _log.warning("%s is started without a fork: its environment is too large for one", order.module)
                return None
            finally:
                os.close(their_stdout)
                os.close(their_report)
            pid = await _number(report)
        return None if pid is None else Forked(pid, stdout, report)


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """A pipe: our end, to read, and the other's."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb"))
    return reader, theirs


async def _number(report: asyncio.StreamReader) -> int | None:
    """The number on the next line; None where there is none."""
    line = await report.readline()
    return int(line) if line else None
