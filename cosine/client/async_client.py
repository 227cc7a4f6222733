"""The asynchronous client: one channel per gateway, generations that survive the loss of any of them.

Every request carries an id and a seed of its own, so that any gateway can go on from the tokens received: a broken
stream is resumed elsewhere, and text that has arrived is never repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from cosine.client.addresses import check_addresses
from cosine.client.options import Options, build
from cosine.client.persistence import Persistence, RetryPolicy
from cosine.client.results import (
    Chunk,
    Completion,
    Model,
    Peer,
    chunk_from,
    completion_from,
    last_chunk_from,
    model_from,
    peer_from,
)
from cosine.core.errors import Cancelled, Expired, MeshError, Unavailable
from cosine.rpc.channel import connection_options
from cosine.rpc.errors import from_rpc_error
from cosine.v1 import gateway_pb2 as pb
from cosine.v1.gateway_pb2_grpc import GatewayServiceStub

QUESTION_TIMEOUT_S = 10.0
LATE_S = 0.1  # an end for lack of time this close to our own deadline is our own deadline
CHANNEL_OPTIONS = [*connection_options(), ("grpc.enable_retries", 0)]  # this module retries; it knows what was received

_T = TypeVar("_T")


class AsyncClient:
    """A client of one mesh through any of its gateways: AsyncClient("a:50050", "b:50050"). Each is HOST:PORT, or a name
    of a scheme that gRPC knows, such as unix:/PATH. Belongs to one event loop; close it after use.

    All methods raise `cosine.core.errors.MeshError`: BadRequest, NotFound, Full, Unavailable, Expired and their kin;
    an option that does not exist is a TypeError.
    """

    def __init__(
        self,
        *addresses: str,
        retry: RetryPolicy = RetryPolicy(),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        check_addresses(addresses)
        self._addresses = addresses
        self._current = random.randrange(len(addresses))
        self._retry = retry
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closed = False

    async def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> AsyncGenerator[Chunk, None]:
        """Yields chunks as they come; the last has `finish_reason`. Leaving the loop cancels the generation.

        Keep the iterator and `aclose()` it (or use `contextlib.aclosing`) where the cancellation must be immediate.
        """
        request = build(prompt, options)
        deadline = _deadline(options.get("timeout"))
        persistence = Persistence(self._retry)
        received: list[int] = []
        while True:
            gateway = self._current
            try:
                async with aclosing(self._attempt(request, deadline)) as chunks:
                    async for chunk in chunks:
                        persistence.progressed()
                        received.extend(chunk.token_ids)
                        yield chunk
                        if chunk.finish_reason is not None:
                            return
                error: MeshError = Unavailable("STREAM_ENDED", "the stream ended before the text did")
            except grpc.aio.AioRpcError as failure:
                error = from_rpc_error(failure)
            await self._pause(error, persistence, deadline, gateway)
            request.resume.CopyFrom(pb.Resume(token_ids=received))

    async def complete(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Completion:
        """The whole generation at once."""
        seeded: Options = {"seed": random.SystemRandom().getrandbits(64), **options}
        return completion_from([chunk async for chunk in self.generate(prompt, **seeded)], seeded["seed"])

    async def peers(self) -> tuple[Peer, ...]:
        """The peers of the mesh, as the registry knows them."""
        response = await self._ask(lambda stub: stub.ListPeers(pb.ListPeersRequest(), timeout=QUESTION_TIMEOUT_S))
        return tuple(peer_from(entry) for entry in response.peers)

    async def model(self) -> Model:
        """The served model, its limits and strategies."""
        return model_from(await self._ask(lambda stub: stub.GetModel(pb.GetModelRequest(), timeout=QUESTION_TIMEOUT_S)))

    async def close(self) -> None:
        """Closes all channels; running generations end with Cancelled."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _attempt(self, request: pb.GenerateRequest, deadline: float | None) -> AsyncGenerator[Chunk, None]:
        """The chunks of one call; it is cancelled when this generator is closed."""
        call = self._stub().Generate(request, timeout=_left_s(deadline))
        try:
            async for response in call:
                if response.HasField("chunk"):
                    yield chunk_from(response.chunk)
                elif response.HasField("finished"):
                    yield last_chunk_from(response.finished)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise Cancelled("CLIENT_CLOSED", "the client was closed while a generation ran") from None
            raise
        finally:
            call.cancel()

    async def _ask(self, ask: Callable[[Any], Awaitable[_T]]) -> _T:
        persistence = Persistence(self._retry)
        deadline = _deadline(QUESTION_TIMEOUT_S)
        while True:
            gateway = self._current
            try:
                return await ask(self._stub())
            except grpc.aio.AioRpcError as failure:
                await self._pause(from_rpc_error(failure), persistence, deadline, gateway)

    async def _pause(self, error: MeshError, persistence: Persistence, deadline: float | None, gateway: int) -> None:
        """Waits until the next try, which goes to another gateway than the one that failed: to the next, unless another
        call has turned away from that one already. Raises where there shall be no try."""
        left_s = _left_s(deadline)
        if isinstance(error, Expired) and left_s is not None and left_s < LATE_S:  # gRPC's words say less
            raise Expired(
                "DEADLINE_EXCEEDED", "the time allowed is over; what was received so far is valid, allow more time"
            ) from error
        delay_s = persistence.delay_after(error, random.random())
        if left_s is not None and left_s <= delay_s:
            raise Expired(
                "DEADLINE_EXCEEDED", f"no time is left for another try after: {error.message}; allow more time"
            ) from error
        if self._current == gateway:
            self._current = (gateway + 1) % len(self._addresses)
        await asyncio.sleep(delay_s)

    def _stub(self) -> Any:
        if self._closed:
            raise Cancelled("CLIENT_CLOSED", "the client is closed; open another")
        address = self._addresses[self._current]
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials, options=CHANNEL_OPTIONS)
            self._channels[address] = channel
        return GatewayServiceStub(channel)


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s


def _left_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
