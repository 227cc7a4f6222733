"""`python -m cosine.cli.forkserver FD MODULE...`: imports modules once, then forks a process for every order.

Torch and transformers take seconds of a core to import, and a mesh on one machine needs them in several processes. This
one opens nothing but the socket FD, and forks only where no module has started a thread. An order is one message with
three descriptors: where the process writes, where its errors go, and where is told first its pid, then how it ended.
The forked process runs its module as `python -m` would, in a session of its own, but does not tidy up at its end: what
it shares would be copied first. The kernel kills it when the server ends, as the server does when nobody can give it
orders any more.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess

from cosine.cli.launch import end_with

ORDER_BYTES_MAX = 1 << 20
DESCRIPTORS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """A process that is wanted: the module it runs, with which arguments, in which environment."""

    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def encoded(self) -> bytes:
        """One message."""
        return json.dumps(asdict(self)).encode()


def decoded(message: bytes) -> Order:
    """The order of a message."""
    entry = json.loads(message)
    return Order(entry["module"], tuple(entry["arguments"]), entry["environment"])


class Server:
    """Forks, and tells of ends."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._context: ForkContext = multiprocessing.get_context("fork")
        self._running: dict[int, tuple[ForkProcess, int]] = {}  # by sentinel, with where its end is to be told

    def run(self) -> None:
        """Serves until nobody can give orders any more."""
        while True:
            for ready in wait([self._orders, *self._running]):
                if isinstance(ready, int):
                    self._tell_end(*self._running.pop(ready))
                elif not self._take():
                    return

    def _take(self) -> bool:
        """Forks for one order; False where there will be none. Where no fork can be had, the report stays empty."""
        message, descriptors, _, _ = socket.recv_fds(self._orders, ORDER_BYTES_MAX, DESCRIPTORS)
        if not message:
            return False
        *_, report = descriptors
        inherited = [self._orders.fileno(), *(where for _, where in self._running.values())]
        process = self._context.Process(target=become, args=(decoded(message), os.getpid(), descriptors, inherited))
        with suppress(OSError):
            process.start()
            self._running[process.sentinel] = process, os.dup(report)
            _tell(report, process.pid or 0)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _tell_end(self, process: ForkProcess, report: int) -> None:
        process.join()
        _tell(report, process.exitcode or 0)
        os.close(report)


def become(order: Order, server: int, descriptors: Sequence[int], inherited: Sequence[int]) -> None:
    """Runs an order, in the process that was forked for it. `inherited` are descriptors of the server's own."""
    os.setsid()
    end_with(server)
    output, errors, _ = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for descriptor in (*descriptors, *inherited):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = [order.module, *order.arguments]
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _tell(report: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(report, b"%d\n" % number)


def main() -> None:
    for name in sys.argv[2:]:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("a module has started threads: what they hold at a fork would stay held")
    gc.collect()
    gc.freeze()  # forks share what is there: collecting would write into all of it
    Server(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
