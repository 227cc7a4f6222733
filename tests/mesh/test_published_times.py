"""Times of forward passes, as the peers of a running mesh publish them: measured at start-up, then learned."""

from __future__ import annotations

import pytest
from generations import Asking, eventually, speculates
from plain import DRAFTERS, TARGET

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient

PACE_MS, DRAFTER_PACE_MS = 40.0, 1.0
DRAFTER = {"d0": DRAFTERS["d0"]}


async def test_peers_publish_what_they_measured_and_what_was_learned_since() -> None:
    paces = {"pace": f"{PACE_MS:g}", "drafter_pace": f"{DRAFTER_PACE_MS:g}"}
    spec = MeshSpec(target=TARGET, drafters=DRAFTER, gateway="127.0.0.1:0", **paces)
    async with Mesh(spec) as mesh, AsyncClient(mesh.gateway_address) as client:
        await speculates(client, *DRAFTER)
        await Asking(client).one("Measured. ", max_new_tokens=20, ignore_eos=True)
        peers = {peer.peer_id: peer for peer in await client.peers()}
        for name, pace_ms in (("verifier", PACE_MS), ("d0", DRAFTER_PACE_MS)):
            base_ms, row_ms = peers[name].base_ms, peers[name].row_ms
            assert base_ms is not None
            assert row_ms is not None
            assert base_ms + 16 * row_ms >= 0.9 * pace_ms  # what a pass sleeps too long, the next one makes up for
        assert peers["gateway"].base_ms is None

        async def learned() -> bool:
            of = {peer.peer_id: {entry.peer_id: entry for entry in peer.learned} for peer in await client.peers()}
            if not of["scheduler"] or not of["d0"]:
                return False
            assert of["scheduler"].keys() == {"verifier"}
            assert of["d0"].keys() == {"d0"}
            assert of["d0"]["d0"].base_ms + 16 * of["d0"]["d0"].row_ms >= 0.9 * DRAFTER_PACE_MS
            return not of["verifier"]

        await eventually(learned, "the scheduler tells what it learned of the verifier, the drafter of its own passes")


@pytest.mark.asyncio(loop_scope="session")
async def test_toys_at_full_speed_publish_no_times(client: AsyncClient) -> None:
    assert {(peer.base_ms, peer.row_ms) for peer in await client.peers()} == {(None, None)}
