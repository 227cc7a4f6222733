"""What a gateway tells of its peers and of its model, and which verifiers it believes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from gateway_stage import PATIENCE_S, Mesh
from structlog.testing import capture_logs

from cosine.rpc.errors import from_rpc_error
from cosine.store.registry import DRAINING, LOST, LearnedTime, PeerRecord
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import types_pb2
from services.gateway.catalog import TOKENS_MAX_UNKNOWN, Catalog


async def test_peers_and_model_are_told(mesh: Mesh) -> None:
    verifier = PeerRecord("verifier", "v", "127.0.0.1:9", 5, model_id="toy", tokens_max=64)
    model = await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)
    assert (model.model_id, model.vocab_size, model.default_strategy) == ("toy", 257, "cosine")
    assert "plain" in model.strategies
    await mesh.registry.register(verifier)
    peers = (await mesh.stub.ListPeers(pb.ListPeersRequest(), timeout=PATIENCE_S)).peers
    assert [(peer.peer_id, peer.state) for peer in peers] == [("scheduler-0", "serving"), ("v", "serving")]
    assert not any(peer.HasField("base_ms") or peer.HasField("row_ms") or peer.learned for peer in peers)


async def test_a_peer_of_a_role_nobody_knows_is_listed_without_one(mesh: Mesh) -> None:
    await mesh.registry.register(PeerRecord("banana", "odd", "127.0.0.1:9", 5))
    peers = (await mesh.stub.ListPeers(pb.ListPeersRequest(), timeout=PATIENCE_S)).peers
    assert {peer.peer_id: peer.role for peer in peers} == {
        "odd": types_pb2.ROLE_UNSPECIFIED,
        "scheduler-0": types_pb2.ROLE_SCHEDULER,
    }


async def test_times_of_passes_are_told(mesh: Mesh) -> None:
    verifier = PeerRecord("verifier", "v", "127.0.0.1:9", 5, base_ms=15.5, row_ms=0.0)
    teacher = PeerRecord("scheduler", "t", "127.0.0.1:9", 6, learned=(LearnedTime("v", 20.0, 0.5, 1.5),))
    for record in (teacher, verifier):
        await mesh.registry.register(record)
    peers = {peer.peer_id: peer for peer in (await mesh.stub.ListPeers(pb.ListPeersRequest())).peers}
    assert (peers["v"].base_ms, peers["v"].row_ms, peers["v"].HasField("row_ms")) == (15.5, 0.0, True)
    (learned,) = peers["t"].learned
    assert (learned.peer_id, learned.base_ms, learned.row_ms, learned.kilotoken_ms) == ("v", 20.0, 0.5, 1.5)


async def test_a_verifier_with_another_tokenizer_is_named(mesh: Mesh) -> None:
    await mesh.registry.register(PeerRecord("verifier", "v", "127.0.0.1:9", 5, tokenizer_fingerprint="other"))

    async def ask_until_refused() -> None:
        while True:
            await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(ask_until_refused(), PATIENCE_S)
    assert from_rpc_error(caught.value).reason == "TOKENIZER_MISMATCH"


async def told_tokens_max(mesh: Mesh) -> int:
    return int((await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)).tokens_max)


async def registered(mesh: Mesh, name: str, model: str, tokens_max: int, fingerprint: str = "") -> None:
    """A verifier, of the gateway's own tokenizer unless told otherwise."""
    ours = (await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)).tokenizer_fingerprint
    facts: dict[str, Any] = {"tokenizer_fingerprint": fingerprint or ours, "model_id": model, "tokens_max": tokens_max}
    await mesh.registry.register(PeerRecord("verifier", name, "127.0.0.1:9", 5, **facts))


async def ignored(logs: Any, *names: str) -> list[Any]:
    """What the log says of verifiers that are ignored, once it has named these."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            lines = [line for line in logs if line["event"] == "verifier ignored"]
            if {line["verifier"] for line in lines} >= set(names):
                return lines
            await asyncio.sleep(0)


async def test_a_verifier_that_does_not_fit_is_ignored_and_named(mesh: Mesh) -> None:
    with capture_logs() as logs:
        await registered(mesh, "v", "toy", 64)
        await registered(mesh, "a-foreign", "toy", 16, "f" * 64)
        await registered(mesh, "a-stranger", "toy:seed=9", 32)
        lines = await ignored(logs, "a-foreign", "a-stranger")
    assert await told_tokens_max(mesh) == 64
    assert len(lines) == 2
    found = {line["verifier"]: (line["model_id"], line["tokenizer"], line["expected_model_id"]) for line in lines}
    assert found["a-foreign"] == ("toy", "f" * 16, "toy")
    assert (found["a-stranger"][0], found["a-stranger"][2]) == ("toy:seed=9", "toy")


async def test_the_first_verifiers_model_is_the_mesh_s(mesh: Mesh) -> None:
    with capture_logs() as logs:
        await registered(mesh, "v", "toy:seed=1", 64)
        async with asyncio.timeout(PATIENCE_S):
            while await told_tokens_max(mesh) != 64:
                pass
        await registered(mesh, "a-later", "toy:seed=9", 32)
        (line,) = await ignored(logs, "a-later")
    assert (line["model_id"], line["expected_model_id"]) == ("toy:seed=9", "toy:seed=1")
    assert await told_tokens_max(mesh) == 64


@pytest.mark.parametrize("state", [DRAINING, LOST, "gone"])
async def test_what_the_verifiers_take_holds_while_none_of_them_serves(mesh: Mesh, state: str) -> None:
    (catalog,) = [servicer._catalog for _, servicer, _ in mesh.service.servicers]
    verifier = PeerRecord(
        "verifier", "v", "127.0.0.1:9", 5, tokenizer_fingerprint=catalog.fingerprint, model_id="toy", tokens_max=8192
    )
    views = [(), (verifier,), () if state == "gone" else (replace(verifier, state=state),)]
    told = [tokens_max async for tokens_max in told_of(catalog, views)]
    assert told == [TOKENS_MAX_UNKNOWN, 8192, 8192]
    smaller = [(replace(verifier, incarnation=6, tokens_max=64),)]
    assert [tokens_max async for tokens_max in told_of(catalog, smaller)] == [64]


async def told_of(catalog: Catalog, views: Sequence[tuple[PeerRecord, ...]]) -> AsyncIterator[int]:
    """How many tokens a request may have, after each view of the registry."""

    class Watched:
        async def watch(self) -> AsyncIterator[tuple[PeerRecord, ...]]:
            for view in views:
                yield view

    catalog._registry = Watched()  # type: ignore[assignment]  # all of a registry that is asked for
    async for _ in catalog.views():
        yield catalog.facts().tokens_max
