"""One measurement: a system, a number of clients, a temperature; how long and what came out."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosine.cli.demo.models import Prompt
from cosine.client.async_client import AsyncClient
from cosine.client.results import Completion, completion_from
from cosine.core.errors import Unavailable
from cosine.core.noise import mix

STREAM_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """`clients` requests at a time, `request_count` in all, of `token_count` new tokens each."""

    clients: int
    temperature: float
    token_count: int
    request_count: int

    @property
    def label(self) -> str:
        kind = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"
        return f"{kind}, {self.clients} client{'s' if self.clients > 1 else ''}, {self.request_count} requests"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one system under one load; what follows `acceptance` is the median over requests."""

    tokens_per_s: float
    acceptance: float = 1.0
    overhead_ms: float = 0.0
    exchanges: float = 0.0
    first_token_ms: float = 0.0
    texts: tuple[tuple[int, ...], ...] = ()


async def measure_mesh(client: AsyncClient, prompts: Sequence[Prompt], load: Load, strategy: str) -> Measured:
    """The mesh with one strategy on the first of the prompts; a client takes the next when its last is answered."""
    queue = list(enumerate(prompts[: load.request_count]))
    total = len(queue)
    done: dict[int, tuple[Completion, float, float]] = {}

    async def work() -> None:
        while queue:
            index, prompt = queue.pop(0)
            done[index] = await _complete(client, prompt, index, load, strategy)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(load.clients):
            group.create_task(work())
    took_s = time.perf_counter() - start
    results = [done[index] for index in range(total)]
    return Measured(
        sum(len(completion.token_ids) for completion, _, _ in results) / took_s,
        statistics.fmean(completion.speculation.acceptance_length for completion, _, _ in results),
        statistics.median(_overhead_ms(completion, stream_ms) for completion, stream_ms, _ in results),
        statistics.median(
            _per_round(completion, completion.speculation.exchange_count) for completion, _, _ in results
        ),
        statistics.median(first_ms for _, _, first_ms in results),
        tuple(tuple(completion.token_ids) for completion, _, _ in results),
    )


async def _complete(
    client: AsyncClient, prompt: Prompt, index: int, load: Load, strategy: str
) -> tuple[Completion, float, float]:
    """One request: its result, milliseconds from first to last token, and milliseconds to the first token."""
    start = time.perf_counter()
    first = 0.0
    chunks = []
    async for chunk in client.generate(
        prompt.token_ids,
        temperature=load.temperature,
        seed=mix(index),
        max_new_tokens=load.token_count,
        strategy=strategy,
        ignore_eos=True,
    ):
        first = first or time.perf_counter()
        chunks.append(chunk)
    end = time.perf_counter()
    completion = completion_from(chunks, mix(index))
    return completion, (end - first) * 1000, (first - start) * 1000


def _per_round(completion: Completion, value: float) -> float:
    return value / max(1, completion.speculation.round_count - 1)


def _overhead_ms(completion: Completion, stream_ms: float) -> float:
    """Time per round, seen by the client, that neither the target's nor the slowest drafter's passes explain."""
    figures = completion.speculation
    passes_ms = figures.verify_ms + figures.drafter_forward_ms
    return _per_round(completion, stream_ms - passes_ms)


class Baseline:
    """transformers in a process of its own, one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, target: str, assistant: str, threads: int, device: str) -> Baseline:
        """Returns once both models are loaded. Raises Unavailable."""
        models = ["--target", target, "--assistant", assistant]
        command = ["-m", "bench.baseline", *models, "--threads", str(threads), "--device", device]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=STREAM_BYTES_MAX,
        )
        baseline = cls(process)
        try:
            await baseline._read()
        except BaseException:
            await baseline.stop()
            raise
        return baseline

    async def measure(self, prompts: Sequence[Prompt], load: Load, assisted: bool) -> Measured:
        """As many prompts as the load has requests, one after the other. Raises Unavailable."""
        seconds = 0.0
        texts: list[tuple[int, ...]] = []
        for index, prompt in enumerate(prompts[: load.request_count]):
            request = {
                "prompt": prompt.token_ids,
                "max_new_tokens": load.token_count,
                "temperature": load.temperature,
                "seed": index,
                "assisted": assisted,
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            reply = await self._read()
            seconds += reply["seconds"]
            texts.append(tuple(reply["token_ids"]))
        return Measured(sum(map(len, texts)) / seconds, texts=tuple(texts))

    async def stop(self) -> None:
        """Ends the process, whatever it is at."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Unavailable(
                "BASELINE_ENDED",
                "transformers' process ended; run `python -m bench.baseline` by hand to see why, or leave it out with "
                "--no-baselines",
            )
        reply: dict[str, Any] = json.loads(line)
        return reply
