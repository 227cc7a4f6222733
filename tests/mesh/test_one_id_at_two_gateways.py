"""One request id at two gateways: the later request goes on, and the client of the earlier one is told at once."""

from __future__ import annotations

import pytest
from generations import Asking, generating
from plain import DRAFTERS, TARGET
from processes import service

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient
from cosine.core.errors import Cancelled

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = {"max_new_tokens": 400, "ignore_eos": True, "request_id": "same"}


async def test_the_earlier_client_is_told_and_the_later_ones_text_is_its_own() -> None:
    spec = MeshSpec(target=TARGET, drafters=DRAFTERS, gateway="127.0.0.1:0", pace="5")
    flags = (f"--model={TARGET}", "--peer-id=gateway-2")
    async with (
        Mesh(spec) as mesh,
        service("gateway", *flags, redis_url=mesh.redis_url) as (second, _),
        AsyncClient(mesh.gateway_address) as client,
        AsyncClient(second) as other,
        generating(client, ("Long. ", LONG)) as (earlier,),
    ):
        await earlier.reaches(10)
        await Asking(other).one("Another text. ", max_new_tokens=20, ignore_eos=True, request_id="same")
        with pytest.raises(Cancelled) as told:
            await earlier.completion()
        assert told.value.reason == "TAKEN_OVER"
        assert earlier.token_count < LONG["max_new_tokens"]
