"""One cell of the comparison: a strategy under a load on a mesh, request by request.

In a closed loop, clients begin with requests of different lengths that are not measured, and go on with further ones
until all measured ones have ended: so these come one by one, and see the same load from first to last. Times here are
real seconds; dividing by the time scale is for `bench.paper.cells`.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count

from bench.paper.counters import Counters, difference, read_counters
from bench.paper.loads import Load
from cosine.cli.demo.models import Prompt
from cosine.client.async_client import AsyncClient
from cosine.client.results import Chunk
from cosine.core.noise import mix

WARM_UP_TOKENS_MIN, WARM_UP_TOKENS_MAX = 8, 16
DIGEST_CHARS = 12
SEEDS = 1 << 32


@dataclass(frozen=True, slots=True)
class Served:
    """One request: seconds until its first and its last token. `text` is a digest of its tokens."""

    first_s: float
    total_s: float
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


class _Loop:
    """The books of a closed loop: who has begun, which requests are measured, what has become of them."""

    def __init__(self, client_count: int, request_count: int) -> None:
        self.is_full, self.is_complete = asyncio.Event(), asyncio.Event()
        self.measuring = False
        self.done: dict[int, Served] = {}
        self._request_count = request_count
        self._waiting = client_count
        self._measured = count()
        self._unmeasured = count(-1, -1)

    def arrived(self) -> None:
        """One more client has its first token."""
        self._waiting -= 1
        if not self._waiting:
            self.is_full.set()

    def next_index(self) -> int:
        """The number of the next request: from 0 on, those to be measured come first; before that, negative ones."""
        return next(self._measured if self.measuring else self._unmeasured)

    def ended(self, index: int, served: Served) -> None:
        """A request has ended."""
        if 0 <= index < self._request_count:
            self.done[index] = served
            if len(self.done) == self._request_count:
                self.is_complete.set()


@dataclass(slots=True)
class Bench:
    """A mesh to be measured: a client, prompts in turns, tokens per request, ports of metrics."""

    client: AsyncClient
    prompts: Sequence[Prompt]
    token_count: int
    ports: dict[str, int]
    _received: int = field(default=0)
    _warm: set[str] = field(default_factory=set)

    async def warm_up(self, strategy: str, load: Load) -> None:
        """A short text of every kind of prompt, all at once, where the strategy has served none yet. Raises MeshError
        where it is refused."""
        if strategy in self._warm:
            return
        kinds = len({prompt.domain for prompt in self.prompts})
        async with asyncio.TaskGroup() as group:
            for index in range(-kinds, 0):
                group.create_task(self._serve(index, strategy, load, warm_up_tokens(self.token_count)))
        self._warm.add(strategy)

    async def closed(self, strategy: str, load: Load, request_count: int) -> Observation:
        """`load.clients` requests at a time; `request_count` are measured, once every client has had a first token."""
        loop = _Loop(load.clients, request_count)

        async def client(number: int) -> None:
            token_count = max(1, self.token_count * (2 * number + 1) // (2 * load.clients))
            await self._serve(loop.next_index(), strategy, load, token_count, on_first=loop.arrived)
            while True:
                index = loop.next_index()
                served = await self._serve(index, strategy, load, self.token_count)
                loop.ended(index, served)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client(number)) for number in range(load.clients)]
            await loop.is_full.wait()
            loop.measuring = True
            before, start = await self._begin()
            await loop.is_complete.wait()
            observed = await self._end(before, start, [loop.done[index] for index in range(request_count)])
            for task in tasks:
                task.cancel()
        return observed

    async def opened(self, strategy: str, load: Load, times_s: Sequence[float]) -> Observation:
        """A request at each of the times, whatever has become of those before it."""
        before, start = await self._begin()

        async def come(index: int, when_s: float) -> Served:
            await asyncio.sleep(max(0.0, start + when_s - time.perf_counter()))
            return await self._serve(index, strategy, load, self.token_count, start + when_s)

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
        self,
        index: int,
        strategy: str,
        load: Load,
        token_count: int,
        came: float | None = None,
        on_first: Callable[[], None] = lambda: None,
    ) -> Served:
        """One request; those that are not measured have negative numbers, and prompts from the end. `came` is
        when it should have been sent, where that is not now; `on_first` is called at its first token. Raises MeshError.
        """
        came = time.perf_counter() if came is None else came
        prompt = self.prompts[index % len(self.prompts)]
        chunks = self.client.generate(
            prompt.token_ids,
            temperature=load.temperature,
            seed=mix(index % SEEDS),
            max_new_tokens=token_count,
            strategy=strategy,
            ignore_eos=True,
        )
        token_ids: list[int] = []
        first = 0.0
        last: Chunk | None = None
        async with aclosing(chunks):
            async for last in chunks:
                if last.token_ids and not token_ids:
                    first = time.perf_counter()
                    on_first()
                token_ids += last.token_ids
                self._received += len(last.token_ids)
        assert last is not None
        figures = last.speculation
        return Served(
            first - came,
            time.perf_counter() - came,
            len(token_ids),
            figures.round_count if figures else 0,
            figures.accepted_token_count if figures else 0,
            digest(token_ids),
        )


def warm_up_tokens(token_count: int) -> int:
    """How long the texts of a warm-up are where requests are so long."""
    return min(WARM_UP_TOKENS_MAX, max(WARM_UP_TOKENS_MIN, token_count // 4))


def digest(token_ids: Sequence[int]) -> str:
    """A short name of a text."""
    return hashlib.sha256(" ".join(map(str, token_ids)).encode()).hexdigest()[:DIGEST_CHARS]
