"""A whole mesh on one machine, as separate processes: embedded store, gateway, scheduler, fusion, drafters, verifiers.

    async with Mesh(spec) as mesh:
        ... mesh.gateway_address, mesh.peers, mesh.peer("code").pid ...

A peer that dies is started again where it was. Leaving the block drains and ends everything; if this process itself is
killed, the kernel ends the peers with it (see `cosine.cli.launch`). It does not talk to the peers: how they are is for
whoever uses the mesh.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cosine.cli.keeper import Keeper, Peer
from cosine.cli.meshfile import MeshSpec
from cosine.cli.processes import ENGINE_MODULES, ForkServer, start_fresh
from cosine.cli.roster import STOP_ORDER, STORE, Plan, environment, roster
from cosine.core.errors import BadRequest, MeshError, NotFound, Unavailable

RESTART_TIMEOUT_S = 60.0
LAST_STAGE_S = 2.0  # given to every stage of stopping even where the grace is used up


class Mesh:
    """A running mesh. `on_change` hears of every peer's change; `log_dir` holds one file per peer; the
    default is a temporary folder, which stays only where something went wrong. Peers with an engine are forked by
    `forks`, where given; else by a server of the mesh's own, where that is safe.

    Entering raises BadRequest where `log_dir` cannot be written, and the MeshError of the first peer that cannot start,
    after everything else has been ended.
    """

    def __init__(
        self,
        spec: MeshSpec,
        log_dir: Path | None = None,
        on_change: Callable[[Peer], None] = lambda _: None,
        forks: ForkServer | None = None,
    ) -> None:
        self.spec = spec
        self.log_dir = log_dir or Path(tempfile.mkdtemp(prefix="cosine-mesh-"))
        self._keeps_logs = log_dir is not None
        self.redis_url = spec.redis
        self.on_change = on_change
        self._forks, self._owns_forks = forks, forks is None
        self._store_folder: tempfile.TemporaryDirectory[str] | None = None
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    @property
    def peers(self) -> list[Peer]:
        """All peers, the embedded store included, in the order in which they were started."""
        return [keeper.peer for keeper in self._keepers.values()]

    @property
    def gateway_address(self) -> str:
        """HOST:PORT for clients on this machine."""
        host, _, port = self.peer("gateway").address.rpartition(":")
        return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"

    def peer(self, peer_id: str) -> Peer:
        """One peer. Raises NotFound."""
        if peer_id not in self._keepers:
            raise NotFound("PEER", f"there is no peer {peer_id!r}; the peers are {', '.join(self._keepers)}")
        return self._keepers[peer_id].peer

    def kill(self, peer_id: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to a peer's process, as an accident would; returns its pid. `restarted` waits for the next."""
        pid = self.peer(peer_id).pid
        assert pid, f"{peer_id} has no process now"
        os.kill(pid, number)
        return pid

    async def wait_for(self, condition: Callable[[Mesh], bool], timeout_s: float = RESTART_TIMEOUT_S) -> None:
        """Waits until a condition on the peers holds; it is asked at every change. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def restarted(self, peer_id: str, since_pid: int | None = None, timeout_s: float = RESTART_TIMEOUT_S) -> Peer:
        """Waits until the peer serves in another process than `since_pid` (default: the present one)."""
        before = self.peer(peer_id).pid if since_pid is None else since_pid
        await self.wait_for(lambda mesh: mesh.peer(peer_id).is_serving and mesh.peer(peer_id).pid != before, timeout_s)
        return self.peer(peer_id)

    async def run(self) -> None:
        """Runs until cancelled, or until a peer is given up, which raises its error."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        self._raise_failures()

    async def __aenter__(self) -> Self:
        self._open_logs()
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                plans = roster(self.spec)
                if self._forks is None and any(plan.has_engine for plan in plans):
                    self._forks = fork_server()
                if not self.redis_url:
                    self._store_folder = tempfile.TemporaryDirectory(prefix="cosine-store-", ignore_cleanup_errors=True)
                    await self._start([STORE])
                    self.redis_url = f"redis://{self.peer('store').address}"
                await self._start(plans)
        except BaseException as error:
            await self._leave(type(error), grace_s=0)
            if isinstance(error, TimeoutError):
                raise self._too_late() from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(kind)

    async def stop(self, grace_s: float | None = None) -> None:
        """Drains and ends all peers: first who takes requests in, last who holds the keys. 0 ends them at once, and so
        does whoever cancels this."""
        grace_s = self.spec.grace_s if grace_s is None else grace_s
        try:
            deadline = asyncio.get_running_loop().time() + grace_s
            for role in STOP_ORDER if grace_s else ():
                await self._stop_stage(role, deadline)
        finally:
            await self._end()

    async def _end(self) -> None:
        """Kills all peers; the store may end its server first, which writes into its folder until then."""
        try:
            for keeper in self._keepers.values():
                if keeper.peer.role != STORE.role:
                    keeper.kill()
            if self._forks is not None and self._owns_forks:
                self._forks.close()  # it may still import, and keepers wait for it
                self._forks = None
            await self._stop_stage(STORE.role, asyncio.get_running_loop().time())
        finally:
            for keeper in self._keepers.values():
                keeper.kill()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            if self._store_folder is not None:
                self._store_folder.cleanup()

    async def _stop_stage(self, role: str, deadline: float) -> None:
        stage = [keeper for keeper in self._keepers.values() if keeper.peer.role == role]
        for keeper in stage:
            keeper.stop()
        tasks = [self._tasks[keeper.peer.peer_id] for keeper in stage]
        if tasks:
            await asyncio.wait(tasks, timeout=max(LAST_STAGE_S, deadline - asyncio.get_running_loop().time()))
        for keeper in stage:
            keeper.kill()

    async def _start(self, plans: Sequence[Plan]) -> None:
        """Starts peers side by side and waits until all serve. Raises the error of the first that cannot."""
        for plan in plans:
            start = self._forks.start if self._forks is not None and plan.has_engine else start_fresh
            variables = environment(plan.threads, self.redis_url)
            if plan.role == STORE.role and self._store_folder is not None:
                variables["TMPDIR"] = self._store_folder.name
            keeper = Keeper(plan, variables, self.log_dir, self._note, start)
            self._keepers[plan.peer_id] = keeper
            self._tasks[plan.peer_id] = task = asyncio.create_task(keeper.run(), name=plan.peer_id)
            task.add_done_callback(lambda _: self._changed.set())
        while not all(self._keepers[plan.peer_id].peer.address for plan in plans):
            self._raise_failures()
            self._changed.clear()
            await self._changed.wait()

    def _open_logs(self) -> None:
        """Finds out with a file of no name whether logs can be written; permissions alone do not tell."""
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.log_dir):
                pass
        except OSError as error:
            raise BadRequest(
                "LOG_DIR",
                f"logs cannot be written into {self.log_dir} ({error.strerror}); name a folder of yours with --log-dir",
            ) from error

    async def _leave(self, kind: type[BaseException] | None, grace_s: float | None = None) -> None:
        """Stops. Removes our temporary log folder after a mesh that was stopped, and keeps it after one that failed."""
        try:
            await self.stop(grace_s)
        finally:
            if not self._keeps_logs and (kind is None or issubclass(kind, asyncio.CancelledError)):
                shutil.rmtree(self.log_dir, ignore_errors=True)

    def _note(self, peer: Peer) -> None:
        self._changed.set()
        self.on_change(peer)

    def _raise_failures(self) -> None:
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.result()

    def _too_late(self) -> MeshError:
        missing = ", ".join(peer.peer_id for peer in self.peers if not peer.address)
        return Unavailable(
            "MESH_NOT_STARTED",
            f"{missing or 'the mesh'} did not serve within {self.spec.start_timeout_s:g} s; "
            f"see the logs in {self.log_dir}, or give more --start-timeout-s",
        )


def fork_server() -> ForkServer | None:
    """A process that forks peers with an engine; None where a fork is not safe with what they import."""
    return ForkServer(ENGINE_MODULES, environment(1, "")) if sys.platform == "linux" else None


def interrupt_main_task(numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
    """From now on a first signal cancels the current task, so that its `async with` blocks drain; a second cancels
    that, so that they end at once; a third ends us."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    is_second = False

    def on_signal() -> None:
        nonlocal is_second
        task.cancel()
        if is_second:
            for number in numbers:
                loop.remove_signal_handler(number)
                with suppress(ValueError):
                    signal.signal(number, signal.SIG_DFL)
        is_second = True

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
