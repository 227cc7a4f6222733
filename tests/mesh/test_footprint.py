"""What the light services cost and show: no torch, little memory, health by name, reflection, help."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from generations import Asking
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from processes import ended, mapped_files, resident_bytes

from cosine.cli.supervisor import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIGHT = ("gateway", "scheduler", "fusion")
SERVICES = {
    "gateway": "cosine.v1.GatewayService",
    "scheduler": "cosine.v1.SchedulerService",
    "fusion": "cosine.v1.FusionService",
    "d0": "cosine.v1.DrafterService",
    "verifier": "cosine.v1.VerifierService",
}
RESIDENT_BYTES_MAX = 150 * 1024 * 1024


async def test_gateway_scheduler_and_fusion_carry_no_torch_and_little_memory(mesh: Mesh, ask: Asking) -> None:
    options = {"max_new_tokens": 30, "ignore_eos": True}
    await ask.all(*((f"Request {index}. ", {**options, "seed": index}) for index in range(50)))
    for peer in (mesh.peer(name) for name in LIGHT):
        assert not [path for path in mapped_files(peer.pid) if "torch" in path], peer.role
        assert resident_bytes(peer.pid) < RESIDENT_BYTES_MAX, peer.role


async def test_a_toy_mesh_carries_no_torch_at_all(mesh: Mesh, ask: Asking) -> None:
    await ask.one("Any. ", max_new_tokens=5)
    for peer in mesh.peers:
        assert not [path for path in mapped_files(peer.pid) if "torch" in path], peer.role


@pytest.mark.parametrize(("peer_id", "name"), SERVICES.items(), ids=SERVICES)
async def test_health_is_told_by_name(mesh: Mesh, peer_id: str, name: str) -> None:
    async with grpc.aio.insecure_channel(mesh.peer(peer_id).address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for asked in ("", name):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=asked), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="cosine.v1.NoSuchService"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("peer_id", "name"), SERVICES.items(), ids=SERVICES)
async def test_reflection_lists_the_service_and_gives_its_contract(mesh: Mesh, peer_id: str, name: str) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
    ]
    async with grpc.aio.insecure_channel(mesh.peer(peer_id).address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests), timeout=10)
        listed, contract = [answer async for answer in call]
    names = {entry.name for entry in listed.list_services_response.service}
    assert names == {name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert contract.file_descriptor_response.file_descriptor_proto


async def test_every_service_explains_its_flags() -> None:
    pages = await asyncio.gather(*(ended(f"services.{role}", "--help") for role in (*LIGHT, "drafter", "verifier")))
    for status, output, errors in pages:
        assert (status, errors) == (0, "")
        assert "--listen" in output
        assert "--redis-url" in output
