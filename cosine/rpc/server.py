"""One service process: binds, reports health, tells the registry, prints that it is ready, drains on SIGTERM.

It does not know what the service does; `Service` brings servicers, background tasks and a drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from cosine.core.errors import MeshError, Unavailable
from cosine.rpc import telemetry
from cosine.rpc.channel import PING_EVERY_MS
from cosine.rpc.errors import Borders
from cosine.rpc.hello import Identity
from cosine.rpc.settings import ServiceSettings
from cosine.rpc.streams import channel_options

log = structlog.get_logger()


class Registrar(Protocol):
    """Keeps a peer in the registry; see cosine.store.registry."""

    async def run(self, address: str, load: Callable[[], int]) -> None:
        """Registers and heartbeats until cancelled; an unreachable registry is retried for ever."""
        ...

    async def drain(self) -> None:
        """Marks the peer as draining."""
        ...


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class Service:
    """What a process serves. `servicers` are (add function, servicer, full service name)."""

    identity: Identity
    servicers: Sequence[tuple[Callable[[Any, Any], None], Any, str]]
    load: Callable[[], int] = lambda: 0
    background: Sequence[Callable[[], Awaitable[None]]] = field(default_factory=list)
    drain: Callable[[], Awaitable[None]] = _nothing
    registrar: Registrar | None = None


def server_options(message_bytes_max: int) -> list[tuple[str, Any]]:
    """Options of a server: no port sharing, so an occupied port is an error; bursts are queued, not cancelled."""
    return [
        *channel_options(message_bytes_max),
        ("grpc.so_reuseport", 0),
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_EVERY_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


async def serve(settings: ServiceSettings, service: Service) -> None:
    """Runs the service until SIGTERM or SIGINT, then drains within the grace time."""
    identity = service.identity
    log.info("settings", **settings.masked())
    host = settings.host_for_peers()
    server = grpc.aio.server(options=server_options(settings.message_bytes_max), interceptors=[Borders()])
    health = _add_servicers(server, service)
    port = _bind(server, settings.listen)
    telemetry.serve_metrics(settings.metrics_listen)
    await server.start()
    telemetry.setup_tracing(identity.role, identity.peer_id)
    address = settings.advertise or f"{host}:{port}"
    stop = asyncio.Event()
    _on_signal(stop.set)
    tasks = [asyncio.ensure_future(start()) for start in service.background]
    if service.registrar is not None:
        tasks.append(asyncio.create_task(service.registrar.run(address, service.load)))
    await _set_health(health, service, health_pb2.HealthCheckResponse.SERVING)
    gc.collect()
    gc.freeze()  # what start-up made stays: later collections need not walk it in the middle of a round
    _announce(identity, address)
    try:
        await _until_stopped(stop, tasks)
        log.info("draining", grace_s=settings.grace_s)
        await health.enter_graceful_shutdown()
        await _drain(service, settings.grace_s)
    finally:
        await health.enter_graceful_shutdown()  # where a task has failed, nobody has been told
        await server.stop(0.2)
        await _end(tasks)
    log.info("stopped")


def _add_servicers(server: grpc.aio.Server, service: Service) -> HealthServicer:
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for add, servicer, _ in service.servicers:
        add(servicer, server)
    names = [name for _, _, name in service.servicers]
    reflection.enable_server_reflection(
        [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], server
    )
    return health


def _bind(server: grpc.aio.Server, listen: str) -> int:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        port = 0
    if port == 0:
        raise Unavailable(
            "ADDRESS_IN_USE", f"cannot listen on {listen}; another process may have the port: choose another --listen"
        )
    return int(port)


async def _set_health(health: HealthServicer, service: Service, status: Any) -> None:
    for name in ("", *(name for _, _, name in service.servicers)):
        await health.set(name, status)


def _announce(identity: Identity, address: str) -> None:
    """One line on stdout for whoever started the process."""
    ready = {
        "role": identity.role,
        "peer_id": identity.peer_id,
        "address": address,
        "model_id": identity.model_id,
        "pid": os.getpid(),
    }
    print(json.dumps({"ready": ready}), flush=True)
    log.info("serving", **ready)


def _on_signal(react: Callable[[], object]) -> None:
    """What the signals to stop do from now on."""
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, react)


async def _until_stopped(stop: asyncio.Event, tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Returns at a signal; raises what a background task raised."""
    waiter: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    for task in done:
        task.result()


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancels until all have ended: `asyncio.wait_for` of Python 3.11 can swallow a cancellation (gh-86296)."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.2)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(service: Service, grace_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            if service.registrar is not None:
                await service.registrar.drain()
            await service.drain()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """The border of a process: known errors end it with one line and status 2, unknown ones with a traceback and status
    1. It does not wait for its threads: an engine that hangs would keep it for ever."""
    telemetry.setup_logging("info")  # until the settings are read
    status = 0
    try:
        asyncio.run(_until_told(main))
    except MeshError as error:
        log.error("cannot go on", reason=error.reason, message=error.message, **error.details)
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        status = 2
    except Exception:  # the border
        traceback.print_exc()
        status = 1
    finally:
        telemetry.end_tracing()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _until_told(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `main`; a signal ends it, until `serve` hears it instead. Without a handler the first process of a container
    would miss it."""
    task = asyncio.current_task()
    assert task is not None
    _on_signal(task.cancel)
    try:
        await main()
    except asyncio.CancelledError:
        if not task.cancelling():  # nobody has told it
            raise
        log.info("stopped")
