"""Generations that tests watch while they run, and how tests wait: for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from plain import Plain, plain

from cosine.client import AsyncClient, Chunk
from cosine.client.results import Completion, completion_from

PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.02


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, within_s: float = PATIENCE_S
) -> float:
    """Seconds until the condition held. Raises AssertionError, saying what was awaited, where it did not in time."""
    start = time.monotonic()
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return time.monotonic() - start
        if time.monotonic() - start > within_s:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(LOOK_AGAIN_S)


async def speculates(client: AsyncClient, *drafters: str) -> None:
    """Waits until these drafters take part: all may serve before fusion knows of them."""

    async def take_part() -> bool:
        completion = await client.complete("Again. ", strategy="specinfer", max_new_tokens=30, ignore_eos=True)
        return set(drafters) <= set(completion.speculation.drafters)

    await eventually(take_part, f"{drafters} draft")


class Generation:
    """One generation read by a task of its own. `gaps` are the seconds between chunks."""

    def __init__(self, client: AsyncClient, prompt: str | Sequence[int], options: dict[str, Any]) -> None:
        self.prompt = prompt
        self.options = options
        self.token_count = 0
        self.gaps: list[float] = []
        self._chunks: list[Chunk] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read(client))

    @property
    def running(self) -> bool:
        return not self.task.done()

    async def reaches(self, token_count: int) -> None:
        """Waits until so many tokens have come. Raises what ended the generation, or AssertionError, before."""
        async with asyncio.timeout(PATIENCE_S):
            while self.token_count < token_count:
                assert self.running or self.task.result(), "unreachable"
                assert self.running, f"the text ended after {self.token_count} of {token_count} tokens"
                await self._changed.wait()
                self._changed.clear()

    async def completion(self) -> Completion:
        """All of it."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.task

    async def _read(self, client: AsyncClient) -> Completion:
        try:
            last = time.monotonic()
            async for chunk in client.generate(self.prompt, **self.options):
                now = time.monotonic()
                self.gaps.append(now - last)
                last = now
                self._chunks.append(chunk)
                self.token_count += len(chunk.token_ids)
                self._changed.set()
            return completion_from(self._chunks, self.options.get("seed", 0))
        finally:
            self._changed.set()


@asynccontextmanager
async def generating(client: AsyncClient, *requests: tuple[Any, dict[str, Any]]) -> AsyncIterator[list[Generation]]:
    """Generations side by side; what still runs at the end is cancelled."""
    async with AsyncExitStack() as stack:
        running = [Generation(client, prompt, options) for prompt, options in requests]
        for generation in running:
            stack.push_async_callback(asyncio.gather, generation.task, return_exceptions=True)
            stack.callback(generation.task.cancel)
        yield running


def matches(completion: Completion, expected: Plain) -> bool:
    """Whether a completion is the reference, field by field; shows the first difference where not."""
    found = Plain(completion.token_ids, completion.text, completion.finish_reason)
    assert found == expected
    assert completion.usage.output_token_count == len(expected.token_ids)
    return True


@dataclass(frozen=True)
class Asking:
    """Completions compared with plain decoding."""

    client: AsyncClient

    async def one(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """The completion, which is plain decoding's."""
        completion = await self.client.complete(prompt, timeout=PATIENCE_S, **options)
        reference = {key: value for key, value in options.items() if key not in ("strategy", "request_id")}
        assert matches(completion, plain(prompt, **reference))
        return completion

    async def all(self, *requests: tuple[Any, dict[str, Any]]) -> list[Completion]:
        """All at once."""
        return list(await asyncio.gather(*(self.one(prompt, **options) for prompt, options in requests)))
