"""The one thread that owns a device. The event loop hands it work and never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Worker:
    """Runs one call after the other on its own thread."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[[], Result]) -> Result:
        """The result of `call`, made on the thread; its exception is raised here."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
