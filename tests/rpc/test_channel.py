"""Connections of the mesh: a slow one is waited for, a silent one is given up, and servers bear the pings it takes.

Every connection here leads through a wire that the test can hold up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from cosine.client.async_client import CHANNEL_OPTIONS
from cosine.rpc.channel import connection_options
from cosine.rpc.server import server_options
from cosine.rpc.streams import channel_options

DEADLINE_S = 20.0
SLOW_MS = 500
QUICK = {"grpc.keepalive_time_ms": 20, "grpc.keepalive_timeout_ms": SLOW_MS, "grpc.http2.ping_timeout_ms": SLOW_MS}
PINGS = 5  # more in a row than gRPC sends by itself at once; it sends one a second at most
METHOD = "/test.Echo/Talk"
CALLERS = pytest.mark.parametrize("options", [channel_options, lambda: CHANNEL_OPTIONS], ids=["peer", "client"])


class Wire:
    """Carries bytes to `port` once it is `open`, until it is cut; counts connections, and pieces from the callers."""

    def __init__(self, port: int) -> None:
        self.open = asyncio.Event()
        self.is_cut = False
        self.connection_count = 0
        self.connected = asyncio.Event()
        self.pieces: asyncio.Queue[int] = asyncio.Queue()
        self._port = port
        self._tasks: set[asyncio.Future[Any]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection came."""
        self.connection_count += 1
        self.connected.set()
        self._writers.append(writer)
        self._tasks.add(asyncio.ensure_future(self._join(reader, writer)))

    async def close(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(far_writer)
        await asyncio.gather(self._pump(reader, far_writer, True), self._pump(far_reader, writer, False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: bool) -> None:
        while data := await reader.read(1 << 16):
            if counts:
                self.pieces.put_nowait(len(data))
            if not self.is_cut:
                writer.write(data)
                await writer.drain()
        writer.close()


def but(options: Sequence[tuple[str, Any]], changed: Mapping[str, int]) -> list[tuple[str, Any]]:
    """The options; those that are among them have the values of `changed`."""
    return [(name, changed.get(name, value)) for name, value in options]


async def echo(_requests: object, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
        await context.write(message)


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wire, str]]:
    """A wire to a server that echoes, and where to connect to it."""
    server = grpc.aio.server(options=but(server_options(1 << 20), {"grpc.http2.min_ping_interval_without_data_ms": 1}))
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Talk": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    wire = Wire(port)
    listener = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield wire, f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await wire.close()
        await server.stop(0)


async def said(channel: grpc.aio.Channel) -> Any:
    """A stream on which one message has gone there and back."""
    call = channel.stream_stream(METHOD)()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    return call


async def given_up_after(connect_ms: int) -> None:
    """Returns once a caller that is less patient has given up connecting where nobody says anything."""
    options = but(connection_options(), {"grpc.min_reconnect_backoff_ms": connect_ms})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await said(channel)


@CALLERS
async def test_a_connection_that_takes_long_is_waited_for(options: Any) -> None:
    async with wired() as (wire, address), grpc.aio.insecure_channel(address, options=options()) as channel:
        talking = asyncio.create_task(said(channel))
        await wire.connected.wait()
        await given_up_after(SLOW_MS)
        wire.open.set()
        await talking
        assert wire.connection_count == 1


async def test_who_falls_silent_is_given_up_however_long_nothing_was_said() -> None:
    quick = but(channel_options(), QUICK)
    async with wired() as (wire, address), grpc.aio.insecure_channel(address, options=quick) as channel:
        wire.open.set()
        call = await said(channel)
        while not wire.pieces.empty():
            wire.pieces.get_nowait()
        for _ in range(PINGS):
            await wire.pieces.get()
        wire.is_cut = True
        with pytest.raises(grpc.aio.AioRpcError, match="ping timeout"):
            await call.read()


async def test_peers_dial_each_other_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is there
    async with wired() as (wire, address), grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        wire.open.set()
        await said(channel)


def test_the_client_watches_its_connections_as_peers_do() -> None:
    assert set(connection_options()) <= set(CHANNEL_OPTIONS)


def test_servers_put_up_with_more_pings_than_callers_send() -> None:
    server = dict(server_options(1 << 20))
    for caller in (dict(channel_options()), dict(CHANNEL_OPTIONS)):
        assert server["grpc.http2.min_ping_interval_without_data_ms"] < caller["grpc.keepalive_time_ms"]
    assert server["grpc.keepalive_permit_without_calls"]
