"""Real processes in tests: a `cosine up` of its own, and waiting for processes to end without polling."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
TARGET = "toy:seed=1"
DRAFTERS = {"near": "toy:seed=1,own=5,skill=0.9", "far": "toy:seed=1,own=6,skill=0.5"}


class Up:
    """A running `cosine up` in a session of its own, as a terminal would start it."""

    def __init__(self, folder: Path, flags: Iterable[str] = (), names_log_dir: bool = True) -> None:
        ready_file = folder / "ready.json"
        drafters = [f"--drafter={name}={source}" for name, source in DRAFTERS.items()]
        places = [f"--ready-file={ready_file}", "--gateway=127.0.0.1:0"]
        if names_log_dir:
            places.append(f"--log-dir={folder / 'logs'}")
        command = [sys.executable, "-m", "cosine.cli", "up", f"--target={TARGET}", *drafters, *places, "--grace-s=5"]
        self.process = subprocess.Popen(
            [*command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT_ROOT,
            env=environment({"TMPDIR": str(folder)}),
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("mesh is up"):
                break
        assert ready_file.exists(), (self.lines, self.process.communicate()[1])
        self.ready: dict[str, Any] = json.loads(ready_file.read_text())

    @property
    def address(self) -> str:
        return str(self.ready["gateway"])

    @property
    def pids(self) -> list[int]:
        """The supervisor, its peers, and the server that the store's process runs."""
        return [self.process.pid, *(peer["pid"] for peer in self.ready["peers"]), server_pid(self.ready["redis"])]

    def end(self, number: int) -> list[int]:
        """Sends a signal to the supervisor's process group; returns the pids that outlive it."""
        with Watch(self.pids) as watch:
            os.killpg(self.process.pid, number)
            left = watch.left()
        self.process.communicate(timeout=DEADLINE_S)
        return left


class Watch:
    """Processes that shall end. Opened before they are told to, so that a pid is never mistaken for a later one."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._handles = {os.pidfd_open(pid): pid for pid in pids}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            os.close(handle)

    def left(self) -> list[int]:
        """Waits until all have ended; returns the pids of those that have not in time."""
        running, deadline = dict(self._handles), time.monotonic() + DEADLINE_S
        while running and (left_s := deadline - time.monotonic()) > 0:
            ended, _, _ = select.select(list(running), [], [], left_s)
            for handle in ended:
                del running[handle]
        return list(running.values())


def server_pid(redis_url: str) -> int:
    """The process id of a Redis."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        return int(client.info("server")["process_id"])


def alive(pids: Iterable[int]) -> list[int]:
    """Those that still run, or have ended without being waited for."""
    return [pid for pid in pids if pid and Path(f"/proc/{pid}").exists()]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what another mesh may have set."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COSINE_")} | dict(more or {})
