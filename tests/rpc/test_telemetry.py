"""Traces: one request is one trace, across every service, as a collector sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client.async_client import AsyncClient

SERVICES = {"gateway", "scheduler", "fusion", "drafter", "verifier"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps (service, span name, trace id) of every span it is sent."""

    def __init__(self) -> None:
        self.spans: set[tuple[str, str, bytes]] = set()
        self.changed = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.add((names["service.name"].removeprefix("cosine-"), span.name, span.trace_id))
        self.changed.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def services_by_trace(self) -> dict[bytes, set[str]]:
        result: dict[bytes, set[str]] = {}
        for service, _, trace in self.spans:
            result.setdefault(trace, set()).add(service)
        return result


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    server = grpc.aio.server()
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    yield collector
    await server.stop(0)


async def test_one_request_is_one_trace_through_all_five_services(collector: Collector) -> None:
    drafters = {"d0": "toy:seed=1,own=5,skill=0.85"}
    spec = MeshSpec(target="toy:seed=1", drafters=drafters, gateway="127.0.0.1:0")
    async with Mesh(spec) as mesh, AsyncClient(mesh.gateway_address) as client:
        await client.complete("hello", max_new_tokens=20, ignore_eos=True, strategy="vanilla")
        async with asyncio.timeout(60):
            while SERVICES not in collector.services_by_trace().values():
                collector.changed.clear()
                await collector.changed.wait()
