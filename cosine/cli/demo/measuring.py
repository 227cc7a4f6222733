"""Runs prompts through a mesh, one after the other and all at once, and tells whether the texts are plain decoding's.

A bfloat16 target may round the same sum differently in batches of different shape, so two of its runs can part where
two tokens are as good as equal. Where texts part, the target is asked there once more: both tokens must be among its
best, within a stated margin; anything else is a failure. In float32 nothing but equality will do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from cosine.cli.demo.models import Prompt
from cosine.client.async_client import AsyncClient
from cosine.client.options import Options
from cosine.client.results import Speculation

BF16_MARGIN = 0.25  # of natural log-probability, between two tokens that a bfloat16 target may confuse
BEST_COUNT = 5
WARM_UP_TOKENS = 12
WARM_UP_TRIES = 20

IDENTICAL = "identical"
WITHIN_MARGIN = "same within margin"
FAILED = "FAIL"


@dataclass(frozen=True, slots=True)
class Run:
    """One prompt's generation. `seconds` from request to last token."""

    prompt: Prompt
    token_ids: tuple[int, ...]
    seconds: float
    speculation: Speculation

    @property
    def tokens_per_s(self) -> float:
        return len(self.token_ids) / self.seconds


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a text relates to plain decoding's: `kind`, and where they part: the position and the two tokens' gap."""

    kind: str
    position: int = -1
    gap: float = 0.0


async def generate(
    client: AsyncClient, prompt: Prompt, strategy: str, token_count: int, show: Callable[[str], None] = lambda _: None
) -> Run:
    """One generation of exactly `token_count` tokens; `show` gets the text as it comes."""
    options: Options = {"strategy": strategy, "max_new_tokens": token_count, "ignore_eos": True, "seed": 0}
    tokens: list[int] = []
    speculation = Speculation()
    start = time.perf_counter()
    async with aclosing(client.generate(prompt.token_ids, **options)) as chunks:
        async for chunk in chunks:
            tokens += chunk.token_ids
            speculation = chunk.speculation or speculation
            show(chunk.text)
    return Run(prompt, tuple(tokens), time.perf_counter() - start, speculation)


async def generate_at_once(
    client: AsyncClient, prompts: Sequence[Prompt], strategy: str, token_count: int
) -> tuple[list[Run], float]:
    """All prompts at the same time, and the seconds until the last was done."""
    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(generate(client, prompt, strategy, token_count)) for prompt in prompts]
    return [task.result() for task in running], time.perf_counter() - start


async def warm_up(client: AsyncClient, prompts: Sequence[Prompt], drafter_count: int) -> None:
    """Short generations until drafters take part: peers find each other a moment after they serve."""
    await generate(client, prompts[0], "plain", WARM_UP_TOKENS)
    for attempt in range(WARM_UP_TRIES):
        run = await generate(client, prompts[attempt % len(prompts)], "specinfer", WARM_UP_TOKENS)
        if len(run.speculation.drafters) == drafter_count:
            break
    for prompt in {prompt.domain: prompt for prompt in prompts}.values():
        await generate(client, prompt, "cosine", WARM_UP_TOKENS)


async def likeness(client: AsyncClient, text: Run, plain: Run, margin: float) -> Likeness:
    """Compares a text with plain decoding's of the same prompt; asks the target where they part."""
    if text.token_ids == plain.token_ids:
        return Likeness(IDENTICAL)
    pairs = zip(text.token_ids, plain.token_ids, strict=False)
    position = next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), -1)
    if position < 0:  # one is shorter
        return Likeness(FAILED, min(len(text.token_ids), len(plain.token_ids)))
    context = (*plain.prompt.token_ids, *plain.token_ids[:position])
    asked = await client.complete(context, strategy="plain", max_new_tokens=1, logprobs=BEST_COUNT, ignore_eos=True)
    best = dict(asked.logprobs[0].top)
    ours, theirs = best.get(text.token_ids[position]), best.get(plain.token_ids[position])
    if ours is None or theirs is None:
        return Likeness(FAILED, position, float("inf"))
    gap = abs(ours - theirs)
    return Likeness(WITHIN_MARGIN if gap <= margin else FAILED, position, gap)
