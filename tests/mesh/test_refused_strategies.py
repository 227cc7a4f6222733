"""A request whose strategy the mesh cannot follow is refused with the reason, and the good ones beside it go on."""

from __future__ import annotations

import asyncio

import pytest
from generations import PATIENCE_S, Asking
from plain import DRAFTERS

from cosine.client import AsyncClient
from cosine.core.errors import BadRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")

MORE = len(DRAFTERS) + 1
REFUSED = {
    "magic": ("UNKNOWN_STRATEGY", "choose one of plain, vanilla"),
    "cosine:colour=red": ("UNKNOWN_KNOB", "the knobs are choice"),
    "cosine:choice=best": ("KNOB_VALUE", "none, first, all, routed, bandit"),
    "cosine:depth=99": ("KNOB_VALUE", "0 to 64"),
    "cosine:depth=4,depth=6": ("KNOBS_CONTRADICT", "two values"),
    "vanilla:verifiers=2": ("KNOBS_CONTRADICT", "at least as many runs"),
    "vanilla:cut=largest": ("KNOBS_CONTRADICT", "length=goodput"),
    "cosine:drafter=d0": ("KNOBS_CONTRADICT", "choice=first"),
    "pipeinfer:verifiers=3": ("TOO_FEW_VERIFIERS", "3 verifiers for one request and the mesh has 2"),
    f"cosine:drafter_count={MORE}": ("TOO_FEW_DRAFTERS", f"ask for {len(DRAFTERS)} at most"),
    f"specinfer:drafter_count={MORE}": ("TOO_FEW_DRAFTERS", f"{MORE} drafters"),
}


@pytest.mark.parametrize("strategy", REFUSED)
async def test_it_is_refused_by_name(ask: Asking, client: AsyncClient, strategy: str) -> None:
    async def refusal() -> BadRequest:
        with pytest.raises(BadRequest) as caught:
            await client.complete("Refused. ", strategy=strategy, timeout=PATIENCE_S)
        return caught.value

    good = {"max_new_tokens": 16, "strategy": "cosine:cut=largest"}
    refused, _ = await asyncio.gather(refusal(), ask.all(("Good. ", good)))
    reason, words = REFUSED[strategy]
    assert (refused.reason, refused.details["field"], refused.details["value"]) == (reason, "strategy", strategy)
    assert words in refused.message


async def test_the_most_that_there_is_may_be_asked_for(ask: Asking) -> None:
    most = f"cosine:drafter_count={len(DRAFTERS)}"
    strategies = ("dsi:verifiers=2", "pipeinfer:verifiers=2", most, "vanilla:drafter=d1")
    await ask.all(*(("Much. ", {"max_new_tokens": 24, "strategy": strategy}) for strategy in strategies))
