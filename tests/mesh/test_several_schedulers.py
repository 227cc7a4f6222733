"""Two schedulers on one verifier that remembers few sessions: long prompts end, and both schedulers do their part."""

from __future__ import annotations

import pytest
from generations import Asking, eventually
from plain import TARGET
from processes import free_address, metrics, service

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 4
PROMPT_LENGTH = 1500  # read in several batches, between which the other scheduler's come
TOKENS = 30
EVENTS = "cosine_scheduler_handle_seconds_count"


async def test_they_share_its_sessions_and_all_long_prompts_end() -> None:
    spec = MeshSpec(target=TARGET, drafters={}, gateway="127.0.0.1:0", sessions=SESSIONS, pace="4,0.02")
    page = free_address()
    flags = ("--peer-id=scheduler-2", f"--live-max={SESSIONS}", f"--metrics-listen={page}")
    async with (
        Mesh(spec) as mesh,
        service("scheduler", *flags, redis_url=mesh.redis_url),
        AsyncClient(mesh.gateway_address) as client,
    ):

        async def are_two() -> bool:
            return sum(peer.role == "scheduler" for peer in await client.peers()) == 2

        await eventually(are_two, "both schedulers are in the registry")
        before = (await metrics(page))[EVENTS]
        options = {"max_new_tokens": TOKENS, "ignore_eos": True, "strategy": "plain"}
        await Asking(client).all(*(([number] * PROMPT_LENGTH, options) for number in range(2 * SESSIONS)))
        assert (await metrics(page))[EVENTS] - before > 2 * TOKENS, "the second had at least one of them"
