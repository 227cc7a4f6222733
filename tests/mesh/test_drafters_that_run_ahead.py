"""Drafters that run ahead in a whole mesh: they do, steps find their passes run, and the text is plain decoding's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from generations import Asking, speculates
from plain import DRAFTERS, TARGET
from processes import free_address, metrics

from cosine.cli.meshfile import MeshSpec, Option
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

AHEAD, IDLE = ("d0", "d1"), "d2"
LINK_MS = "4"  # a round trip to fusion, in which a drafter has nothing to do
TOKENWISE = "cosine:fusion_interval=1,length=fixed,lookahead=0,drafter_count=3,depth=4,beam=1,reading=replace"
PASSES, HITS = "cosine_drafter_ahead_passes", "cosine_drafter_ahead_hits"
LONG: dict[str, Any] = {"max_new_tokens": 40, "ignore_eos": True, "seed": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages() -> dict[str, str]:
    """Where each drafter shows what it counts."""
    return {name: free_address() for name in DRAFTERS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask(pages: dict[str, str]) -> AsyncIterator[Asking]:
    """A mesh two of whose drafters run ahead; the third, the same but for that, does not."""
    own: dict[str, dict[str, Option]] = {
        name: {"link": LINK_MS, "metrics_listen": page, "run_ahead": name in AHEAD} for name, page in pages.items()
    }
    spec = MeshSpec(target=TARGET, drafters=DRAFTERS, gateway="127.0.0.1:0", verifiers=1, peer_options=own)
    async with Mesh(spec) as mesh, AsyncClient(mesh.gateway_address) as client:
        await speculates(client, *DRAFTERS)
        yield Asking(client)


async def counts(pages: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Per drafter, passes that it has run ahead, and rows of steps that had been."""
    found = {name: await metrics(page) for name, page in pages.items()}
    return {name: (its[PASSES], its[HITS]) for name, its in found.items()}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_they_run_ahead_steps_need_it_and_the_text_is_plain_decodings(
    ask: Asking, pages: dict[str, str], temperature: float
) -> None:
    before = await counts(pages)
    completion = await ask.one("Ahead of its time. ", strategy=TOKENWISE, temperature=temperature, **LONG)
    assert completion.speculation.accepted_token_count > 0
    assert set(completion.speculation.drafters) == set(DRAFTERS)
    after = await counts(pages)
    for name in AHEAD:
        passes, hits = (now - then for now, then in zip(after[name], before[name], strict=True))
        assert passes > 0
        assert 0 < hits <= passes
    assert after[IDLE] == (0.0, 0.0)


async def test_many_at_once_are_written_as_without(ask: Asking) -> None:
    ways = (
        TOKENWISE,
        TOKENWISE.replace("replace", "fork"),
        "cosine:fusion_interval=2",
        "cosine",
        "specinfer",
        "vanilla",
    )
    await ask.all(
        *(
            (f"Side by side {index}. ", {**LONG, "strategy": way, "temperature": temperature})
            for index, way in enumerate(ways)
            for temperature in (0.0, 1.0)
        )
    )


async def test_steps_that_are_for_a_whole_round_are_not_run_ahead_of(ask: Asking, pages: dict[str, str]) -> None:
    before = await counts(pages)
    await ask.one("Nothing in between. ", strategy="specinfer", **LONG)
    assert await counts(pages) == before
