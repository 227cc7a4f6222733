"""The synchronous client: the asynchronous one on an event loop of its own, in a thread that ends with it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Self, TypeVar, Unpack

import grpc

from cosine.client.async_client import AsyncClient
from cosine.client.options import Options
from cosine.client.persistence import RetryPolicy
from cosine.client.results import Chunk, Completion, Model, Peer
from cosine.core.errors import Cancelled

_T = TypeVar("_T")


class Client:
    """A client of one mesh through any of its gateways (HOST:PORT). Threads may share it; close it after use.

    All methods raise `cosine.core.errors.MeshError`; see AsyncClient.
    """

    def __init__(
        self,
        *addresses: str,
        retry: RetryPolicy = RetryPolicy(),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._client = AsyncClient(*addresses, retry=retry, credentials=credentials)
        self._is_closed = False
        self._lock = threading.Lock()  # nothing is handed to the loop once it is about to end
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cosine-client", daemon=True)
        self._thread.start()

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generator[Chunk, None, None]:
        """Yields chunks as they come; the last has `finish_reason`. Leaving the loop cancels the generation."""
        chunks = self._client.generate(prompt, **options)
        turn = asyncio.Lock()  # a step that was interrupted must end before the generator is closed

        async def step() -> Chunk | None:
            async with turn:
                return await anext(chunks, None)

        async def leave() -> None:
            async with turn:
                await chunks.aclose()

        try:
            while (chunk := self._run(step())) is not None:
                yield chunk
        finally:
            if not self._is_over:
                self._run(leave())

    def complete(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Completion:
        """The whole generation at once."""
        return self._run(self._client.complete(prompt, **options))

    def peers(self) -> tuple[Peer, ...]:
        """The peers of the mesh, as the registry knows them."""
        return self._run(self._client.peers())

    def model(self) -> Model:
        """The served model, its limits and strategies."""
        return self._run(self._client.model())

    def close(self) -> None:
        """Closes all channels and ends the thread; calls that other threads wait for end with Cancelled. A second call
        does nothing."""
        with self._lock:
            if self._is_over:
                return
            self._is_closed = True
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _is_over(self) -> bool:
        """True once nothing can be run any more: the client is closed, or the program ends, and its threads have."""
        return self._is_closed or sys.is_finalizing()

    async def _end(self) -> None:
        """Ends all that runs on the loop."""
        await self._client.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs work on the loop's thread; an interruption here (Ctrl-C) cancels it there."""
        with self._lock:
            if self._is_over:
                work.close()
                raise Cancelled("CLIENT_CLOSED", "the client is closed; open another")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("CLIENT_CLOSED", "the client was closed while a call ran; open another") from None
        except BaseException:
            future.cancel()
            raise
