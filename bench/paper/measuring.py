"""One cell of the comparison: a strategy under a load on a mesh, request by request.

In a closed loop, clients go on with further requests until all measured ones have ended, so that these see the same
load from first to last. Times here are real seconds; dividing by the time scale is for `bench.paper.figures`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from bench.paper.counters import Counters, difference, read_counters
from bench.paper.loads import Load
from cosine.cli.demo.models import Prompt
from cosine.client.async_client import AsyncClient
from cosine.client.results import Chunk
from cosine.core.noise import mix

WARM_UP_TOKENS = 16
DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class Served:
    """One request, in seconds since the measurement began. `text` is a digest of its tokens."""

    came_s: float
    first_s: float
    ended_s: float
    token_count: int
    round_count: int
    accepted_count: int
    text: str


@dataclass(frozen=True, slots=True)
class Observation:
    """All measured requests in order, tokens of all requests within `wall_s`, and what the processes counted."""

    served: tuple[Served, ...]
    token_count: int
    wall_s: float
    counted: Counters


@dataclass(slots=True)
class Bench:
    """A mesh to be measured: a client, prompts in turns, tokens per request, ports of metrics."""

    client: AsyncClient
    prompts: Sequence[Prompt]
    token_count: int
    ports: dict[str, int]
    _received: int = field(default=0)

    async def warm_up(self, strategy: str, load: Load) -> None:
        """A short text of every kind of prompt, a few at a time. Raises MeshError where the strategy is refused."""
        kinds = len({prompt.domain for prompt in self.prompts})
        size = min(kinds, load.clients or kinds)
        for start in range(0, kinds, size):
            async with asyncio.TaskGroup() as group:
                for index in range(start, min(kinds, start + size)):
                    group.create_task(self._serve(index, strategy, load, WARM_UP_TOKENS, time.perf_counter()))

    async def closed(self, strategy: str, load: Load, request_count: int) -> Observation:
        """`load.clients` requests at a time; the first `request_count` are measured."""
        done: dict[int, Served] = {}
        following = iter(range(1 << 30))
        complete = asyncio.Event()
        before, start = await self._begin()

        async def client() -> None:
            for index in following:
                served = await self._serve(index, strategy, load, self.token_count, start)
                if index < request_count:
                    done[index] = served
                if len(done) == request_count:
                    complete.set()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client()) for _ in range(load.clients)]
            await complete.wait()
            observed = await self._end(before, start, [done[index] for index in range(request_count)])
            for task in tasks:
                task.cancel()
        return observed

    async def opened(self, strategy: str, load: Load, times_s: Sequence[float]) -> Observation:
        """A request at each of the times, whatever has become of those before it."""
        before, start = await self._begin()

        async def come(index: int, when_s: float) -> Served:
            await asyncio.sleep(max(0.0, start + when_s - time.perf_counter()))
            return await self._serve(index, strategy, load, self.token_count, start, when_s)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(come(index, when_s)) for index, when_s in enumerate(times_s)]
        return await self._end(before, start, [task.result() for task in tasks])

    async def _begin(self) -> tuple[Counters, float]:
        before = await read_counters(self.ports)
        self._received = 0
        return before, time.perf_counter()

    async def _end(self, before: Counters, start: float, served: Sequence[Served]) -> Observation:
        wall_s, token_count = time.perf_counter() - start, self._received
        counted = difference(before, await read_counters(self.ports))
        return Observation(tuple(served), token_count, wall_s, counted)

    async def _serve(
        self, index: int, strategy: str, load: Load, token_count: int, start: float, came_s: float | None = None
    ) -> Served:
        """One request; `came_s` is when it should have been sent, where that is not now. Raises MeshError."""
        came_s = time.perf_counter() - start if came_s is None else came_s
        prompt = self.prompts[index % len(self.prompts)]
        chunks = self.client.generate(
            prompt.token_ids,
            temperature=load.temperature,
            seed=mix(index),
            max_new_tokens=token_count,
            strategy=strategy,
            ignore_eos=True,
        )
        token_ids: list[int] = []
        first_s = 0.0
        last: Chunk | None = None
        async with aclosing(chunks):
            async for last in chunks:
                if last.token_ids and not token_ids:
                    first_s = time.perf_counter() - start
                token_ids += last.token_ids
                self._received += len(last.token_ids)
        assert last is not None
        figures = last.speculation
        return Served(
            came_s,
            first_s,
            time.perf_counter() - start,
            len(token_ids),
            figures.round_count if figures else 0,
            figures.accepted_token_count if figures else 0,
            digest(token_ids),
        )


def digest(token_ids: Sequence[int]) -> str:
    """A short name of a text."""
    return hashlib.sha256(" ".join(map(str, token_ids)).encode()).hexdigest()[:DIGEST_CHARS]
