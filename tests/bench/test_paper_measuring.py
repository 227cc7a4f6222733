"""Measuring: closed loops stay full until the last measured request ends, open ones wait for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from bench.paper import measuring
from bench.paper.counters import READ, VERIFIED
from bench.paper.loads import parse_load
from bench.paper.measuring import Bench, digest
from cosine.cli.demo.models import Prompt
from cosine.client.results import Chunk, Speculation
from cosine.core.errors import BadRequest

PROMPTS = [Prompt(domain, domain, (index,)) for index, domain in enumerate(("code", "prose", "math", "sql"))]


class Client:
    """Writes a token for every turn of the event loop; keeps the books."""

    def __init__(self, slow_prompt: int = -1, refuses: bool = False) -> None:
        self.running = 0
        self.running_at_ends: list[int] = []
        self.seen: list[tuple[int, str, float, int]] = []
        self.cancelled = 0
        self._slow_prompt = slow_prompt
        self._refuses = refuses

    async def generate(self, prompt: Sequence[int], **options: Any) -> AsyncGenerator[Chunk, None]:
        if self._refuses:
            raise BadRequest("NO", "no such strategy")
        self.seen.append((prompt[0], options["strategy"], options["temperature"], options["max_new_tokens"]))
        self.running += 1
        try:
            for number in range(options["max_new_tokens"]):
                for _ in range(50 if prompt[0] == self._slow_prompt else 1):
                    await asyncio.sleep(0)
                yield Chunk(token_ids=(prompt[0], number))
            self.running_at_ends.append(self.running)
            yield Chunk(finish_reason="length", speculation=Speculation(round_count=4, accepted_token_count=6))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that have gone up by one at each reading."""
    readings = iter(range(1000))

    async def read(_ports: dict[str, int]) -> dict[str, dict[str, float]]:
        return {"verifier": dict.fromkeys(READ, float(next(readings)))}

    monkeypatch.setattr(measuring, "read_counters", read)


def bench(client: Client, token_count: int = 5) -> Bench:
    return Bench(client, PROMPTS, token_count, ports={"verifier": 1})  # type: ignore[arg-type]  # stands in for it


async def test_a_closed_loop_stays_full_until_the_last_measured_request_ends() -> None:
    client = Client(slow_prompt=3)
    observed = await bench(client).closed("cosine", parse_load("closed-2-t1"), 4)
    assert client.running_at_ends[-1] == 2
    assert len(client.running_at_ends) > 4
    assert client.cancelled >= 1
    assert client.running == 0
    assert [one.text for one in observed.served] == [
        digest([token for number in range(5) for token in (prompt, number)]) for prompt in range(4)
    ]
    assert {one.token_count for one in observed.served} == {10}
    assert observed.token_count > 40
    assert observed.counted["verifier"][VERIFIED] == 1
    assert {seen[:3] for seen in client.seen} == {(prompt, "cosine", 1.0) for prompt in range(4)}


async def test_a_closed_loop_begins_with_requests_of_different_lengths_that_are_not_measured() -> None:
    client = Client()
    await bench(client, token_count=40).closed("plain", parse_load("closed-4"), 4)
    assert sorted(seen[3] for seen in client.seen[:4]) == [5, 15, 25, 35]
    assert {seen[3] for seen in client.seen[4:]} == {40}


async def test_one_client_has_one_request_at_a_time() -> None:
    client = Client()
    observed = await bench(client).closed("plain", parse_load("closed-1"), 4)
    assert set(client.running_at_ends) == {1}
    assert [one.round_count for one in observed.served] == [4] * 4
    assert all(0 <= one.first_s <= one.total_s <= observed.wall_s for one in observed.served)


async def test_arrivals_wait_for_nobody() -> None:
    client = Client()
    observed = await bench(client).opened("plain", parse_load("open-low"), [0.0, 0.0, 0.0])
    assert client.running_at_ends[0] == 3
    assert observed.token_count == 30


async def test_a_strategys_warm_up_touches_every_domain_at_once_and_comes_once() -> None:
    client = Client()
    measured = bench(client)
    await measured.warm_up("cosine", parse_load("closed-2"))
    assert sorted(seen[0] for seen in client.seen) == [0, 1, 2, 3]
    assert max(client.running_at_ends) == 4
    await measured.warm_up("cosine", parse_load("closed-4"))
    assert len(client.seen) == 4
    await measured.warm_up("plain", parse_load("closed-4"))
    assert [seen[1] for seen in client.seen[4:]] == ["plain"] * 4


async def test_a_refusal_is_raised() -> None:
    for measured in (
        bench(Client(refuses=True)).closed("spin", parse_load("closed-2"), 4),
        bench(Client(refuses=True)).opened("spin", parse_load("open-low"), [0.0]),
        bench(Client(refuses=True)).warm_up("spin", parse_load("closed-1")),
    ):
        with pytest.raises(ExceptionGroup) as refused:
            await measured
        assert refused.group_contains(BadRequest)
