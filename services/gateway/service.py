"""The gateway's servicer: decodes and checks requests, runs generations, answers questions about the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict

from opentelemetry import trace

from cosine.core.errors import BadRequest, NotFound, Unavailable
from cosine.core.intake import IntakeLimits, Job, check_request_id, take_in
from cosine.core.strategy import PRESETS, parse
from cosine.rpc.hello import role_value
from cosine.rpc.telemetry import TRACEPARENT, traceparent
from cosine.v1 import gateway_pb2 as pb
from cosine.v1.gateway_pb2_grpc import GatewayServiceServicer
from services.gateway.account import Account
from services.gateway.catalog import Catalog
from services.gateway.decoding import check_sizes, decode, draw_absent
from services.gateway.delivery import Context, Deliveries
from services.gateway.generation import Door, Generation


class GatewayServicer(GatewayServiceServicer):
    """The public API over one door into the mesh."""

    def __init__(self, door: Door, catalog: Catalog, limits: IntakeLimits) -> None:
        self._door = door
        self._catalog = catalog
        self._limits = limits
        self._deliveries = Deliveries()
        self._draining = False

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        """See gateway.proto."""
        deadline = asyncio.get_running_loop().time() + self._left_s(context)
        takes_over = request.HasField("resume")
        with Account(request.request_id, _metadata(context, TRACEPARENT), deadline) as account:
            with (
                trace.use_span(account.span, record_exception=False, set_status_on_exception=False),
                self._door.relay.place(request.request_id, takes_over),
            ):
                reading = self._read(request)
                del request  # an error on its way out keeps what frames hold, and ids fill ten times their bytes
                job, record = await reading
                account.name(job.request_id)
                generation = Generation(self._door, job, record, deadline, traceparent())
            async with aclosing(generation.run(takes_over)) as responses:
                async for response in responses:
                    account.send(response)
                    with self._deliveries.handing_over(context, deadline):
                        yield response

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        """See gateway.proto."""
        return pb.ListPeersResponse(
            peers=[
                pb.PeerEntry(
                    role=role_value(peer.role),
                    peer_id=peer.peer_id,
                    address=peer.address,
                    model_id=peer.model_id,
                    state=peer.state,
                    load=peer.load,
                    incarnation=peer.incarnation,
                    base_ms=peer.base_ms,
                    row_ms=peer.row_ms,
                    learned=[pb.LearnedTime(**asdict(entry)) for entry in peer.learned],
                )
                for peer in await self._catalog.peers()
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """See gateway.proto."""
        facts = self._catalog.facts()
        return pb.GetModelResponse(
            model_id=self._door.settings.model,
            vocab_size=facts.vocab_size,
            tokens_max=facts.tokens_max,
            new_tokens_max=self._limits.new_tokens_max,
            tokenizer_fingerprint=self._catalog.fingerprint,
            strategies=PRESETS,
            default_strategy=self._door.settings.default_strategy,
        )

    async def drain(self) -> None:
        """Takes nothing new and waits for what runs, not for those that do not read."""
        self._draining = True
        hurrying = asyncio.create_task(self._deliveries.hurry())
        try:
            await self._door.relay.idle()
        finally:
            hurrying.cancel()

    def _left_s(self, context: Context) -> float:
        longest_s = self._door.settings.request_timeout_s
        left_s: float | None = context.time_remaining()
        return longest_s if left_s is None else min(left_s, longest_s)

    async def _read(self, request: pb.GenerateRequest) -> tuple[Job, bytes]:
        """What is asked for, and the record of it."""
        if self._draining:
            raise Unavailable("DRAINING", "this gateway is stopping; try another", retry_delay_ms=100)
        facts = self._catalog.facts()
        check_sizes(request, facts, self._limits, self._door.settings.prompt_bytes_max)
        message = await self._whole(request)
        job = take_in(await decode(message, self._door.tokenizer), facts, self._limits)
        message.ClearField("resume")
        return job, message.SerializeToString()

    async def _whole(self, request: pb.GenerateRequest) -> pb.GenerateRequest:
        """The request with nothing left open: what a resume does not say comes from the record of its first call."""
        if request.request_id or request.HasField("resume"):
            check_request_id(request.request_id)
        message = pb.GenerateRequest()
        message.CopyFrom(request)
        if request.HasField("resume"):
            if request.WhichOneof("prompt") is None:
                message = await self._recorded(request.request_id)
                message.resume.CopyFrom(request.resume)
            elif not request.sampling.HasField("seed") and request.sampling.temperature > 0:
                message.sampling.seed = (await self._recorded(request.request_id)).sampling.seed
        message = draw_absent(message)
        message.strategy = message.strategy or self._door.settings.default_strategy
        return message

    async def _recorded(self, request_id: str) -> pb.GenerateRequest:
        record = await self._door.records.load(request_id)
        if record is None:
            raise NotFound(
                "UNKNOWN_REQUEST",
                f"request {request_id!r} is unknown or too old; resume with the full request and its seed",
                {"field": "request_id", "value": request_id},
            )
        return pb.GenerateRequest.FromString(record)


def _metadata(context: Context, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""


def check_default_strategy(text: str) -> None:
    """Raises BadRequest at start rather than at every request."""
    try:
        parse(text)
    except BadRequest as error:
        raise BadRequest(error.reason, f"--default-strategy: {error.message}", error.details) from error
