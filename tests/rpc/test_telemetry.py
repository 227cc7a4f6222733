"""Traces: one request is one trace, across every service, as a collector sees it; none holds up who stops.

Metrics: where they are shown.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from cosine.cli.meshfile import MeshSpec
from cosine.cli.supervisor import Mesh
from cosine.client.async_client import AsyncClient
from cosine.rpc import telemetry

DEADLINE_S = 20.0
ONE_SPAN = (  # a program that has made a span when it ends, with so many seconds to export it
    "import sys\n"
    "from cosine.rpc import telemetry\n"
    "telemetry.LAST_SPANS_S = float(sys.argv[1])\n"
    "telemetry.setup_tracing('drafter', 'd')\n"
    "telemetry.span('forward').end()\n"
    "telemetry.end_tracing()\n"
)
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
        drafted: tuple[str, ...] = ()
        async with asyncio.timeout(60):
            while not drafted:  # all may serve before fusion knows of the drafter
                completion = await client.complete("hello", max_new_tokens=20, ignore_eos=True, strategy="vanilla")
                drafted = completion.speculation.drafters
            while SERVICES not in collector.services_by_trace().values():
                collector.changed.clear()
                await collector.changed.wait()


async def test_the_last_spans_are_exported_before_a_program_ends(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", ONE_SPAN, str(DEADLINE_S))
    async with asyncio.timeout(DEADLINE_S):
        assert await program.wait() == 0
    assert [(service, name) for service, name, _ in collector.spans] == [("drafter", "forward")]


def test_a_program_ends_although_its_collector_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        command = [sys.executable, "-c", ONE_SPAN, "0.1"]
        ended = subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
    assert ended.stderr == b""


def test_the_end_of_tracing_is_waited_for_no_longer_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    class Stuck:
        def shutdown(self) -> None:
            may_end.wait(DEADLINE_S)
            has_ended.set()

    monkeypatch.setattr(telemetry, "LAST_SPANS_S", 0.0)
    monkeypatch.setattr(telemetry.trace, "get_tracer_provider", Stuck)
    telemetry.end_tracing()
    assert not has_ended.is_set()
    may_end.set()
    assert has_ended.wait(DEADLINE_S)


@pytest.mark.parametrize(
    ("listen", "place"), [("[::1]:9479", (9479, "::1")), ("127.0.0.1:9479", (9479, "127.0.0.1"))], ids=["6", "4"]
)
def test_metrics_are_shown_where_the_flag_says(
    monkeypatch: pytest.MonkeyPatch, listen: str, place: tuple[int, str]
) -> None:
    opened: list[tuple[int, str]] = []
    monkeypatch.setattr(telemetry, "start_http_server", lambda port, host: opened.append((port, host)))
    telemetry.serve_metrics(listen)
    assert opened == [place]
