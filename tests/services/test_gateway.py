"""A real gateway between real gRPC clients, a real store and a scheduler that does what each test tells it to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from cosine.core.errors import BadRequest, MeshError, Unavailable
from cosine.rpc.errors import Borders, from_rpc_error, to_failure
from cosine.rpc.hello import Bounds, Identity
from cosine.rpc.server import server_options
from cosine.rpc.streams import Outbox, accept
from cosine.store.admission import AdmissionBounds, AdmissionQueue, AdmissionReader, Admitted
from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer
from cosine.store.registry import LearnedTime, PeerRecord, Registry
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import scheduler_pb2, types_pb2
from cosine.v1.gateway_pb2_grpc import GatewayServiceStub
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceServicer, add_SchedulerServiceServicer_to_server
from services.gateway.__main__ import assemble
from services.gateway.settings import GatewaySettings

MESHES = itertools.count()
PATIENCE_S = 20.0


class Scheduler(SchedulerServiceServicer):
    """Attaches gateways and takes requests only when asked to."""

    def __init__(self, store: Store, name: str) -> None:
        self.identity = Identity("scheduler", name, bounds=Bounds())
        self.reader = AdmissionReader(store, name, AdmissionBounds(claim_idle_ms=600_000))
        self.outboxes: dict[str, Outbox] = {}
        self.attached = asyncio.Event()
        self.cancelled: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def start(self) -> PeerRecord:
        self.server = grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()])
        add_SchedulerServiceServicer_to_server(self, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return PeerRecord("scheduler", self.identity.peer_id, f"127.0.0.1:{port}", self.identity.incarnation)

    async def stop(self) -> None:
        await self.server.stop(0)
        await self.reader.close()

    async def Attach(self, request_iterator: Any, context: Any) -> None:
        await accept(context, self.identity, "gateway", scheduler_pb2.AttachResponse, self._open)

    def _open(self, peer: Identity, outbox: Outbox) -> _Stream:
        self.outboxes[peer.peer_id] = outbox
        self.attached.set()
        return _Stream(self)

    async def take(self) -> scheduler_pb2.AdmittedRequest:
        """The next request off the stream, acknowledged; the gateway is told that it is taken."""
        entry = await self.read()
        await self.reader.ack([entry])
        self.tell(entry.request)
        return entry.request

    async def read(self) -> Admitted:
        async with asyncio.timeout(PATIENCE_S):
            while not (batch := await self.reader.read(1, 1000)).admitted:
                pass
        return batch.admitted[0]

    def tell(
        self, request: scheduler_pb2.AdmittedRequest, tokens: bytes = b"", offset: int | None = None, **end: Any
    ) -> None:
        """Progress; `offset` defaults to where this attempt began."""
        began = len(request.token_ids) - request.prompt_length
        progress = scheduler_pb2.RequestProgress(
            request_id=request.request_id,
            attempt=request.attempt,
            offset=began if offset is None else offset,
            token_ids=tokens,
            **end,
        )
        self.outboxes[request.gateway_id].send(scheduler_pb2.AttachResponse(progress=progress))


class _Stream:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def on_message(self, message: scheduler_pb2.AttachRequest) -> None:
        self._scheduler.cancelled.put_nowait((message.cancel.request_id, message.cancel.attempt))

    def on_closed(self) -> None:
        pass


class Mesh:
    """One gateway, one scheduler (more on demand), one store."""

    stub: Any

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self.store = store
        self.registry = Registry(store)
        self.scheduler = Scheduler(store, "scheduler-0")
        self.service = assemble(settings, "gateway-0", store)

    async def add_scheduler(self, name: str) -> Scheduler:
        scheduler = Scheduler(self.store, name)
        await self.registry.register(await scheduler.start())
        await scheduler.attached.wait()
        return scheduler

    def generate(self, **fields: Any) -> Any:
        """A call, on request "r" with prompt "hi" unless told otherwise."""
        timeout = fields.pop("timeout", PATIENCE_S)
        fields = {"request_id": "r", "text": "hi", **fields}
        return self.stub.Generate(pb.GenerateRequest(**fields), timeout=timeout)


@asynccontextmanager
async def running(store: Store, connect: bool = True, **settings: Any) -> AsyncIterator[Mesh]:
    defaults: dict[str, Any] = {
        "model": "toy",
        "redis_url": store.url,
        "mesh": "unused",
        "scheduler_wait_s": PATIENCE_S,
    }
    mesh = Mesh(store, GatewaySettings(**{**defaults, **settings}))
    server = grpc.aio.server(options=server_options(1 << 20), interceptors=[Borders()])
    for add, servicer, _ in mesh.service.servicers:
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tasks = [asyncio.ensure_future(start()) for start in mesh.service.background]
    record = await mesh.scheduler.start()
    if connect:
        await mesh.registry.register(record)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            mesh.stub = GatewayServiceStub(channel)
            yield mesh
    finally:
        await server.stop(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await mesh.scheduler.stop()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = Store(url, f"gateway-{next(MESHES)}")
    yield opened
    await opened.close()


@pytest.fixture
async def mesh(store: Store) -> AsyncIterator[Mesh]:
    async with running(store) as started:
        yield started


async def rest(call: Any) -> tuple[str, bytes, pb.Finished | None]:
    """What else a call brings: text, tokens, the end."""
    text, tokens, finished = "", b"", None
    while response := await call.read():  # the end is falsy
        text += response.chunk.text
        tokens += bytes(response.chunk.token_ids)
        if response.HasField("finished"):
            finished = response.finished
    return text, tokens, finished


async def failure(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest(call)
    return from_rpc_error(caught.value)


STOP_TOKEN = types_pb2.FINISH_REASON_STOP_TOKEN
STOP_STRING = types_pb2.FINISH_REASON_STOP_STRING
LENGTH = types_pb2.FINISH_REASON_LENGTH


async def test_a_request_travels_to_the_scheduler_and_its_text_back(mesh: Mesh) -> None:
    call = mesh.generate(sampling={"temperature": 1.0, "seed": 7}, max_new_tokens=3, strategy="plain")
    request = await mesh.scheduler.take()
    started = (await call.read()).started
    assert (started.request_id, started.seed, started.prompt_token_count) == ("r", 7, 2)
    assert bytes(request.token_ids) == b"hi"
    assert (request.attempt, request.prompt_length, request.max_new_tokens) == (1, 2, 3)
    assert (request.sampling.seed, list(request.stop_token_ids), request.strategy) == (7, [256], "plain")
    mesh.scheduler.tell(request, b"ab")
    assert (await call.read()).chunk.text == "ab"
    mesh.scheduler.tell(request, b"c", 2, finish_reason=LENGTH, figures={"round_count": 2})
    text, tokens, finished = await rest(call)
    assert (text, tokens) == ("c", b"c")
    assert finished is not None
    assert (finished.reason, finished.usage.output_token_count, finished.speculation.round_count) == (LENGTH, 3, 2)


async def test_a_request_without_id_and_seed_is_given_both(mesh: Mesh) -> None:
    call = mesh.generate(request_id="")
    request = await mesh.scheduler.take()
    started = (await call.read()).started
    assert started.request_id == request.request_id != ""
    assert started.seed == request.sampling.seed
    call.cancel()


async def test_a_bad_request_is_refused_with_field_and_advice(mesh: Mesh) -> None:
    error = await failure(mesh.generate(max_new_tokens=0))
    assert (error.reason, error.details["field"]) == ("MAX_NEW_TOKENS", "max_new_tokens")


async def test_a_prompt_of_any_length_is_answered_by_name(store: Store) -> None:
    async with running(store, prompt_bytes_max=100_000) as mesh:
        errors = [await failure(mesh.generate(text="x" * size)) for size in (3000, 50_000, 100_001)]
    assert [error.reason for error in errors] == ["PROMPT_TOO_LONG"] * 3
    assert "2047 tokens" in errors[1].message
    assert "100000" in errors[2].message


async def test_half_a_character_waits_for_its_other_half(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=4)
    request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, "a€".encode()[:3])
    mesh.scheduler.tell(request, "€".encode()[2:], 3, finish_reason=LENGTH)
    chunks = [response.chunk async for response in call if response.HasField("chunk")]
    assert "".join(chunk.text for chunk in chunks) == "a€"
    assert all("\N{REPLACEMENT CHARACTER}" not in chunk.text for chunk in chunks)


async def test_a_stop_string_ends_the_text_before_it_and_the_work_behind_it(mesh: Mesh) -> None:
    call = mesh.generate(stop=["de"])
    request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, b"abcd")
    mesh.scheduler.tell(request, b"efg", 4)
    text, tokens, finished = await rest(call)
    assert (text, tokens) == ("abc", b"abcde")
    assert finished is not None
    assert (finished.reason, finished.usage.output_token_count) == (STOP_STRING, 5)
    assert await mesh.scheduler.cancelled.get() == ("r", 1)


async def test_the_end_token_is_counted_but_not_shown(mesh: Mesh) -> None:
    call = mesh.generate()
    request = await mesh.scheduler.take()
    progress = scheduler_pb2.RequestProgress(request_id="r", attempt=1, token_ids=[97, 256], finish_reason=STOP_TOKEN)
    mesh.scheduler.outboxes[request.gateway_id].send(scheduler_pb2.AttachResponse(progress=progress))
    chunks = [response async for response in call]
    assert "".join(response.chunk.text for response in chunks) == "a"
    assert chunks[-1].finished.usage.output_token_count == 2


async def test_repeated_and_overlapping_progress_does_no_harm(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=5)
    request = await mesh.scheduler.take()
    for tokens, offset in [(b"ab", 0), (b"ab", 0), (b"bc", 1), (b"a", 0)]:
        mesh.scheduler.tell(request, tokens, offset)
    mesh.scheduler.tell(request, b"bcde", 1, finish_reason=LENGTH)
    assert (await rest(call))[:2] == ("abcde", b"abcde")


async def test_more_tokens_than_asked_for_are_not_passed_on(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=2)
    mesh.scheduler.tell(await mesh.scheduler.take(), b"abcdef", finish_reason=LENGTH)
    assert (await rest(call))[:2] == ("ab", b"ab")


async def test_a_client_that_leaves_cancels_the_work_at_once(mesh: Mesh) -> None:
    call = mesh.generate()
    mesh.scheduler.tell(await mesh.scheduler.take(), b"ab")
    await call.read()
    await call.read()
    call.cancel()
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)


async def test_a_client_that_leaves_before_a_scheduler_came_takes_its_request_back(mesh: Mesh) -> None:
    call = mesh.generate()
    assert (await call.read()).HasField("started")
    call.cancel()
    queue = AdmissionQueue(mesh.store)
    async with asyncio.timeout(PATIENCE_S):
        while (await queue.figures()).waiting_count:
            pass


async def test_a_deadline_ends_the_request_everywhere(mesh: Mesh) -> None:
    call = mesh.generate(timeout=0.3)
    request = await mesh.scheduler.take()
    assert request.deadline_unix_ms > 0
    assert (await failure(call)).reason == "DEADLINE_EXCEEDED"
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)


async def test_the_gateways_own_limit_ends_a_request_without_deadline(store: Store) -> None:
    async with running(store, request_timeout_s=0.3) as mesh:
        error = await failure(mesh.generate(timeout=None))
        assert (error.reason, type(error).__name__) == ("DEADLINE_EXCEEDED", "Expired")


async def test_the_text_goes_on_when_the_scheduler_is_lost(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=6)
    request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, b"abc")
    assert (await call.read()).HasField("started")
    assert (await call.read()).chunk.text == "abc"
    heir = await mesh.add_scheduler("scheduler-1")
    await mesh.scheduler.stop()
    again = await heir.take()
    assert (again.attempt, bytes(again.token_ids), again.prompt_length) == (2, b"hiabc", 2)
    assert again.sampling == request.sampling
    heir.tell(again, b"def", finish_reason=LENGTH)
    text, tokens, finished = await rest(call)
    assert (text, tokens) == ("def", b"def")
    assert finished is not None
    assert finished.usage.output_token_count == 6
    await heir.stop()


async def test_a_scheduler_that_gives_a_request_up_is_replaced(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=2)
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(Unavailable("VERIFIER_LOST", "gone")))
    again = await mesh.scheduler.take()
    assert again.attempt == 2
    mesh.scheduler.tell(again, b"ab", finish_reason=LENGTH)
    assert (await rest(call))[0] == "ab"


async def test_attempts_are_bounded(store: Store) -> None:
    async with running(store, attempts_max=2) as mesh:
        call = mesh.generate()
        for _ in range(2):
            mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(Unavailable("VERIFIER_LOST", "gone")))
        error = await failure(call)
        assert (error.reason, error.details["last_reason"]) == ("ATTEMPTS_EXHAUSTED", "VERIFIER_LOST")


async def test_a_failure_that_is_the_requests_own_reaches_the_client(mesh: Mesh) -> None:
    call = mesh.generate()
    refusal = BadRequest("SESSION_TOO_LONG", "shorten it", {"field": "prompt"})
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(refusal))
    error = await failure(call)
    assert (error.reason, error.details) == ("SESSION_TOO_LONG", {"field": "prompt"})


async def test_a_gap_in_the_tokens_is_never_shown(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=3)
    mesh.scheduler.tell(await mesh.scheduler.take(), b"c", 2)
    again = await mesh.scheduler.take()
    mesh.scheduler.tell(again, b"abc", finish_reason=LENGTH)
    assert (await rest(call))[0] == "abc"


async def test_a_request_taken_by_a_scheduler_nobody_hears_of_is_admitted_again(store: Store) -> None:
    async with running(store, unheard_s=0.1) as mesh:
        call = mesh.generate(max_new_tokens=1)
        await mesh.scheduler.reader.ack([await mesh.scheduler.read()])
        again = await mesh.scheduler.take()
        assert again.attempt == 2
        mesh.scheduler.tell(again, b"a", finish_reason=LENGTH)
        assert (await rest(call))[0] == "a"


async def test_progress_nobody_waits_for_is_answered_with_a_cancellation(mesh: Mesh) -> None:
    await mesh.scheduler.attached.wait()
    stray = scheduler_pb2.AdmittedRequest(request_id="ghost", attempt=3, gateway_id="gateway-0")
    mesh.scheduler.tell(stray, b"a")
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("ghost", 3)


async def test_a_full_gateway_refuses_and_says_when_to_come_back(store: Store) -> None:
    async with running(store, requests_max=1, retry_delay_ms=70) as mesh:
        call = mesh.generate()
        await call.read()
        error = await failure(mesh.generate(request_id="other"))
        assert (error.reason, error.retry_delay_ms) == ("GATEWAY_FULL", 70)
        call.cancel()


async def test_a_full_mesh_refuses_at_the_door(store: Store) -> None:
    async with running(store, waiting_max=1) as mesh:
        call = mesh.generate()
        await call.read()
        assert (await failure(mesh.generate(request_id="other"))).reason == "ADMISSION_FULL"
        call.cancel()


async def test_without_a_scheduler_the_client_learns_what_is_missing(store: Store) -> None:
    async with running(store, connect=False, scheduler_wait_s=0.05) as mesh:
        assert (await failure(mesh.generate())).reason == "NO_SCHEDULER"


async def test_an_id_in_use_is_refused_unless_resumed(mesh: Mesh) -> None:
    first = mesh.generate()
    await first.read()
    assert (await failure(mesh.generate())).reason == "REQUEST_ID_IN_USE"
    second = mesh.generate(resume=pb.Resume())
    assert (await failure(first)).reason == "TAKEN_OVER"
    request = await mesh.scheduler.take()
    while request.attempt != 2:
        request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, b"ab", finish_reason=STOP_TOKEN)
    assert (await rest(second))[0] == "ab"


async def first_half(mesh: Mesh, **fields: Any) -> None:
    """A call that breaks off after "abcd", of which "abc" was shown."""
    call = mesh.generate(stop=["dx"], sampling={"temperature": 1.0, "seed": 7}, max_new_tokens=7, **fields)
    mesh.scheduler.tell(await mesh.scheduler.take(), b"abcd")
    await call.read()
    assert (await call.read()).chunk.text == "abc"
    call.cancel()
    await mesh.scheduler.cancelled.get()


async def test_a_resumed_text_goes_on_where_it_broke_off(mesh: Mesh) -> None:
    await first_half(mesh)
    call = mesh.stub.Generate(
        pb.GenerateRequest(request_id="r", resume=pb.Resume(token_ids=b"abcd")), timeout=PATIENCE_S
    )
    again = await mesh.scheduler.take()
    assert (again.attempt, bytes(again.token_ids), again.sampling.seed) == (2, b"hiabcd", 7)
    mesh.scheduler.tell(again, b"efg", finish_reason=LENGTH)
    text, tokens, finished = await rest(call)
    assert (text, tokens) == ("defg", b"efg")
    assert finished is not None
    assert finished.usage.output_token_count == 7


async def test_a_resume_with_the_full_request_needs_no_record(mesh: Mesh) -> None:
    call = mesh.generate(resume=pb.Resume(token_ids=b"ab"), sampling={"temperature": 1.0, "seed": 9}, max_new_tokens=3)
    again = await mesh.scheduler.take()
    assert (bytes(again.token_ids), again.sampling.seed) == (b"hiab", 9)
    mesh.scheduler.tell(again, b"c", finish_reason=LENGTH)
    assert (await rest(call))[0] == "c"


async def test_a_resume_of_an_unknown_request_says_what_to_send(mesh: Mesh) -> None:
    call = mesh.stub.Generate(pb.GenerateRequest(request_id="nobody", resume=pb.Resume()), timeout=PATIENCE_S)
    error = await failure(call)
    assert (error.reason, type(error).__name__) == ("UNKNOWN_REQUEST", "NotFound")


@pytest.mark.parametrize(
    ("emitted", "fields", "reason"),
    [
        (b"abcdx", {"stop": ["dx"]}, STOP_STRING),
        (b"abc", {"max_new_tokens": 3}, LENGTH),
        (b"abc", {"stop_token_ids": [ord("c")]}, STOP_TOKEN),
    ],
)
async def test_a_resume_of_what_was_complete_only_ends(
    mesh: Mesh, emitted: bytes, fields: dict[str, Any], reason: int
) -> None:
    text, tokens, finished = await rest(mesh.generate(resume=pb.Resume(token_ids=emitted), **fields))
    assert (text, tokens) == ("", b"")
    assert finished is not None
    assert finished.reason == reason


async def test_logprobs_come_with_their_tokens(mesh: Mesh) -> None:
    call = mesh.generate(sampling={"logprobs": 0}, max_new_tokens=2, stop=["b"])
    request = await mesh.scheduler.take()
    mesh.scheduler.tell(request, b"abc", logprobs=[{"logprob": -0.5}, {"logprob": -1.5}, {"logprob": -2.5}])
    responses = [response async for response in call]
    logprobs = [entry.logprob for response in responses for entry in response.chunk.logprobs]
    assert logprobs == [-0.5, -1.5]


async def test_peers_and_model_are_told(mesh: Mesh) -> None:
    verifier = PeerRecord("verifier", "v", "127.0.0.1:9", 5, model_id="toy", tokens_max=64)
    model = await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)
    assert (model.model_id, model.vocab_size, model.default_strategy) == ("toy", 257, "cosine")
    assert "plain" in model.strategies
    await mesh.registry.register(verifier)
    peers = (await mesh.stub.ListPeers(pb.ListPeersRequest(), timeout=PATIENCE_S)).peers
    assert [(peer.peer_id, peer.state) for peer in peers] == [("scheduler-0", "serving"), ("v", "serving")]
    assert not any(peer.HasField("base_ms") or peer.HasField("row_ms") or peer.learned for peer in peers)


async def test_times_of_passes_are_told(mesh: Mesh) -> None:
    verifier = PeerRecord("verifier", "v", "127.0.0.1:9", 5, base_ms=15.5, row_ms=0.0)
    teacher = PeerRecord("scheduler", "t", "127.0.0.1:9", 6, learned=(LearnedTime("v", 20.0, 0.5),))
    for record in (teacher, verifier):
        await mesh.registry.register(record)
    peers = {peer.peer_id: peer for peer in (await mesh.stub.ListPeers(pb.ListPeersRequest())).peers}
    assert (peers["v"].base_ms, peers["v"].row_ms, peers["v"].HasField("row_ms")) == (15.5, 0.0, True)
    (learned,) = peers["t"].learned
    assert (learned.peer_id, learned.base_ms, learned.row_ms) == ("v", 20.0, 0.5)


async def test_a_verifier_with_another_tokenizer_is_named(mesh: Mesh) -> None:
    await mesh.registry.register(PeerRecord("verifier", "v", "127.0.0.1:9", 5, tokenizer_fingerprint="other"))

    async def ask_until_refused() -> None:
        while True:
            await mesh.stub.GetModel(pb.GetModelRequest(), timeout=PATIENCE_S)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(ask_until_refused(), PATIENCE_S)
    assert from_rpc_error(caught.value).reason == "TOKENIZER_MISMATCH"


async def test_a_draining_gateway_finishes_what_runs_and_takes_nothing_new(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=1)
    request = await mesh.scheduler.take()
    draining = asyncio.ensure_future(mesh.service.drain())
    assert (await failure(mesh.generate(request_id="late"))).reason == "DRAINING"
    assert not draining.done()
    mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
    assert (await rest(call))[0] == "a"
    await draining


async def test_losing_redis_stops_new_requests_and_no_running_one() -> None:
    server = EmbeddedServer()
    store = Store(server.url, "lost")
    async with running(store) as mesh:
        call = mesh.generate(max_new_tokens=2)
        request = await mesh.scheduler.take()
        server.close()
        error = await failure(mesh.generate(request_id="late"))
        assert (error.reason, error.retry_delay_ms) == ("STORE_UNREACHABLE", 1000)
        assert [peer.peer_id for peer in (await mesh.stub.ListPeers(pb.ListPeersRequest())).peers] == ["scheduler-0"]
        mesh.scheduler.tell(request, b"ab", finish_reason=LENGTH)
        assert (await rest(call))[0] == "ab"
    await store.close()
