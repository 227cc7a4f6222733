"""The clients against gateways that follow a script: resuming, refusals, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from cosine.client import AsyncClient, Client
from cosine.client.persistence import RetryPolicy
from cosine.client.results import LearnedTime
from cosine.core.errors import BadRequest, Cancelled, Expired, Full, NotFound, Unavailable
from cosine.rpc.channel import MESSAGE_BYTES_MAX
from cosine.rpc.errors import Borders
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import types_pb2 as types
from cosine.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server

PATIENCE_S = 20.0
GRPC_DEFAULT_BYTES_MAX = 4 * 1024 * 1024  # what a server takes that sets no bound of its own
QUICK = RetryPolicy(tries_max=3, full_tries_max=2, first_delay_s=0.001, last_delay_s=0.002)
Act = Callable[[pb.GenerateRequest], AsyncGenerator[pb.GenerateResponse, None]]


def chunk(text: str, token_ids: bytes = b"") -> pb.GenerateResponse:
    return pb.GenerateResponse(chunk=pb.Chunk(text=text, token_ids=token_ids or text.encode()))


def finished(output_token_count: int = 0) -> pb.GenerateResponse:
    usage = pb.Usage(prompt_token_count=2, output_token_count=output_token_count)
    figures = types.SpeculationFigures(round_count=2, accepted_token_count=3, drafters=["d"], verify_us=1500)
    return pb.GenerateResponse(
        finished=pb.Finished(reason=types.FINISH_REASON_LENGTH, usage=usage, speculation=figures)
    )


def says(*responses: pb.GenerateResponse, then: Exception | None = None) -> Act:
    """An act that sends responses, then fails or ends."""

    async def act(request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateResponse, None]:
        for response in responses:
            yield response
        if then is not None:
            raise then

    return act


class Gateway(GatewayServiceServicer):
    """Plays one act per call and keeps the requests."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.requests: list[pb.GenerateRequest] = []
        self.left = asyncio.Event()
        self.address = ""

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        self.requests.append(request)
        async with aclosing(self.acts.pop(0)(request)) as responses:
            async for response in responses:
                yield response

    async def ListPeers(self, request: pb.ListPeersRequest, context: Any) -> pb.ListPeersResponse:
        learned = [pb.LearnedTime(peer_id="v", base_ms=2.0, row_ms=0.5, kilotoken_ms=1.5)]
        entry = pb.PeerEntry(
            role=types.ROLE_DRAFTER, peer_id="d", state="serving", load=2, base_ms=0.0, learned=learned
        )
        return pb.ListPeersResponse(peers=[entry])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        return pb.GetModelResponse(model_id="toy", vocab_size=257, strategies=["plain"])

    def hangs(self, *responses: pb.GenerateResponse) -> Act:
        """An act that sends responses and goes on until the client leaves."""

        async def act(request: pb.GenerateRequest) -> AsyncGenerator[pb.GenerateResponse, None]:
            try:
                for response in responses:
                    yield response
                await asyncio.Event().wait()
            finally:
                self.left.set()

        return act

    async def __aenter__(self) -> Gateway:
        self.server = grpc.aio.server(interceptors=[Borders()])
        add_GatewayServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        await self.server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.stop(0)


async def texts(client: AsyncClient, **options: Any) -> list[str]:
    return [chunk.text async for chunk in client.generate("hi", timeout=PATIENCE_S, **options)]


async def test_chunks_come_as_they_are_sent_and_the_last_ends_the_text() -> None:
    async with Gateway(says(chunk("ab"), chunk("c"), finished(3))) as gateway, AsyncClient(gateway.address) as client:
        chunks = [chunk async for chunk in client.generate("hi", seed=7)]
    assert [(chunk.text, chunk.token_ids) for chunk in chunks] == [("ab", (97, 98)), ("c", (99,)), ("", ())]
    last = chunks[-1]
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert (last.usage.prompt_token_count, last.usage.output_token_count) == (2, 3)
    assert last.speculation is not None
    speculation = last.speculation
    assert (speculation.drafters, speculation.verify_ms, speculation.acceptance_length) == (("d",), 1.5, 2.5)


async def test_a_completion_is_all_chunks_in_one() -> None:
    async with Gateway(says(chunk("ab"), chunk("c"), finished(3))) as gateway, AsyncClient(gateway.address) as client:
        completion = await client.complete([1, 2], max_new_tokens=3)
    assert (completion.text, completion.token_ids, completion.finish_reason) == ("abc", (97, 98, 99), "length")
    (request,) = gateway.requests
    assert (list(request.token_ids.ids), request.max_new_tokens, request.sampling.seed) == ([1, 2], 3, completion.seed)


@pytest.mark.parametrize(
    "break_off", [Unavailable("SCHEDULERS_LOST", "gone"), Cancelled("CANCELLED", "shed"), None], ids=str
)
async def test_a_broken_stream_goes_on_with_the_tokens_received(break_off: Exception | None) -> None:
    acts = [says(chunk("a"), chunk("", b"b"), then=break_off), says(chunk("bc", b"c"), finished(3))]
    async with Gateway(*acts) as gateway, AsyncClient(gateway.address, retry=QUICK) as client:
        assert "".join(await texts(client, temperature=1.0)) == "abc"
    first, second = gateway.requests
    assert (first.HasField("resume"), list(second.resume.token_ids)) == (False, [97, 98])
    assert (second.request_id, second.sampling.seed, second.text) == (first.request_id, first.sampling.seed, "hi")


async def test_a_text_moves_to_another_gateway_when_its_own_dies() -> None:
    dying, heir = Gateway(), Gateway(says(chunk("b"), finished(2)))
    dying.acts.append(dying.hangs(chunk("a")))
    async with heir:
        await dying.__aenter__()
        async with AsyncClient(dying.address, heir.address, retry=QUICK) as client:
            client._current = 0
            received = []
            async for piece in client.generate("hi", timeout=PATIENCE_S):
                received.append(piece.text)
                if piece.text == "a":
                    await dying.__aexit__()
    assert "".join(received) == "ab"
    assert list(heir.requests[0].resume.token_ids) == [97]


async def test_texts_that_lose_a_gateway_together_move_to_the_same_other_one() -> None:
    dying, heir = Gateway(), Gateway(*(says(chunk("b"), finished(2)) for _ in range(2)))
    dying.acts += [dying.hangs(chunk("a")) for _ in range(2)]
    once = RetryPolicy(tries_max=1, first_delay_s=0.001)
    async with heir:
        await dying.__aenter__()
        async with AsyncClient(dying.address, heir.address, retry=once) as client:
            client._current = 0
            generations = [client.generate("hi", timeout=PATIENCE_S) for _ in range(2)]
            assert [(await anext(chunks)).text for chunks in generations] == ["a", "a"]
            await dying.__aexit__()
            rests = [[chunk.text async for chunk in chunks] for chunks in generations]
    assert rests == [["b", ""], ["b", ""]]


async def test_a_gateway_that_is_not_there_is_passed_over() -> None:
    gateway = Gateway(says(chunk("a"), finished(1)))
    async with gateway, AsyncClient("127.0.0.1:1", gateway.address, retry=QUICK) as client:
        client._current = 0
        assert "".join(await texts(client)) == "a"


async def test_tries_without_progress_are_bounded() -> None:
    async with AsyncClient("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises(Unavailable):
            await texts(client)


async def test_a_full_mesh_is_asked_again_up_to_a_bound() -> None:
    full = says(then=Full("ADMISSION_FULL", "later", retry_delay_ms=1))
    gateway = Gateway(full, full, says(chunk("a"), finished(1)), full, full, full)
    async with gateway, AsyncClient(gateway.address, retry=QUICK) as client:
        assert "".join(await texts(client)) == "a"
        with pytest.raises(Full):
            await texts(client)


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX + 1, 5 * 1024 * 1024], ids=["for the client", "for the gateway"])
async def test_a_message_that_is_too_large_is_final_and_the_bound_named(size: int) -> None:
    patient = RetryPolicy(full_tries_max=1000, first_delay_s=PATIENCE_S)
    bound = MESSAGE_BYTES_MAX if size > MESSAGE_BYTES_MAX else GRPC_DEFAULT_BYTES_MAX
    async with Gateway() as gateway, AsyncClient(gateway.address, retry=patient) as client:
        with pytest.raises(BadRequest, match=f"at most {bound}") as caught:
            await client.complete("x" * size)
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert int(caught.value.details["size"]) > size
    assert gateway.requests == []


@pytest.mark.parametrize(
    "error", [BadRequest("STOP", "too long", {"field": "stop"}), NotFound("X", "unknown")], ids=str
)
async def test_the_callers_fault_is_raised_at_once_with_its_details(error: BadRequest | NotFound) -> None:
    async with Gateway(says(then=error)) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(type(error)) as caught:
            await texts(client)
    assert (caught.value.reason, caught.value.details) == (error.reason, error.details)
    assert len(gateway.requests) == 1


async def test_leaving_the_loop_cancels_the_call() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    async with gateway, AsyncClient(gateway.address) as client:
        async with aclosing(client.generate("hi")) as chunks:
            async for _ in chunks:
                break
        await asyncio.wait_for(gateway.left.wait(), PATIENCE_S)


async def test_cancelling_the_task_cancels_the_call() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    async with gateway, AsyncClient(gateway.address) as client:
        chunks = client.generate("hi")
        await anext(chunks)
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait_for(gateway.left.wait(), PATIENCE_S)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert len(gateway.requests) == 1


async def test_a_deadline_ends_the_generation() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    async with gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(Expired, match="the time allowed is over; what was received so far is valid"):
            [chunk async for chunk in client.generate("hi", timeout=1.0)]
        await asyncio.wait_for(gateway.left.wait(), PATIENCE_S)


async def test_no_try_is_begun_that_the_deadline_forbids() -> None:
    gateway = Gateway(says(then=Full("ADMISSION_FULL", "later", retry_delay_ms=60_000)))
    async with gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(Expired, match="later"):
            await texts(client)


async def test_a_closed_client_ends_what_runs_and_starts_nothing() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    async with gateway:
        client = AsyncClient(gateway.address)
        chunks = client.generate("hi")
        await anext(chunks)
        await client.close()
        with pytest.raises(Cancelled):
            await anext(chunks)
        with pytest.raises(Cancelled):
            await client.model()


async def test_peers_and_model_are_values() -> None:
    async with Gateway() as gateway, AsyncClient("127.0.0.1:1", gateway.address, retry=QUICK) as client:
        (peer,) = await client.peers()
        model = await client.model()
    assert (peer.role, peer.peer_id, peer.state, peer.load) == ("drafter", "d", "serving", 2)
    assert (peer.base_ms, peer.row_ms, peer.learned) == (0.0, None, (LearnedTime("v", 2.0, 0.5, 1.5),))
    assert (model.model_id, model.vocab_size, model.strategies) == ("toy", 257, ("plain",))


@contextmanager
def elsewhere(gateway: Gateway) -> Iterator[Gateway]:
    """A gateway on an event loop of its own, for clients that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(gateway.__aenter__(), loop).result(PATIENCE_S)
    try:
        yield gateway
    finally:
        asyncio.run_coroutine_threadsafe(gateway.__aexit__(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_the_synchronous_client_is_a_plain_loop() -> None:
    acts = [says(chunk("a"), then=Unavailable("GONE", "gone")), says(chunk("b"), finished(2)), says(finished())]
    with elsewhere(Gateway(*acts)) as gateway, Client(gateway.address, retry=QUICK) as client:
        assert [chunk.text for chunk in client.generate("hi")] == ["a", "b", ""]
        assert client.complete("hi").text == ""
        assert client.model().model_id == "toy"
        assert client.peers()[0].peer_id == "d"


def test_leaving_a_plain_loop_cancels_the_call() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    with elsewhere(gateway), Client(gateway.address) as client:
        for _ in client.generate("hi"):
            break
        left = threading.Event()
        gateway.server._loop.call_soon_threadsafe(_when_set, gateway.left, left)  # type: ignore[attr-defined]  # the stubs lack its loop
        assert left.wait(PATIENCE_S)


def _when_set(event: asyncio.Event, flag: threading.Event) -> None:
    asyncio.ensure_future(event.wait()).add_done_callback(lambda _: flag.set())


def test_errors_of_the_synchronous_client_are_typed() -> None:
    gateway = Gateway(says(then=BadRequest("STOP", "too long")))
    with elsewhere(gateway), Client(gateway.address) as client, pytest.raises(BadRequest):
        client.complete("hi")


def test_a_closed_synchronous_client_says_so() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.peers()


def test_a_generation_that_outlives_its_client_just_ends() -> None:
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    with elsewhere(gateway):
        with Client(gateway.address) as client:
            chunks = client.generate("hi")
            assert next(chunks).text == "a"
        chunks.close()


def test_a_program_ends_in_the_middle_of_a_generation() -> None:
    script = (
        "import sys\n"
        "from cosine.client import Client\n"
        "chunks = Client(sys.argv[1]).generate('hi')\n"
        "assert next(chunks).text == 'a'\n"
    )
    gateway = Gateway()
    gateway.acts.append(gateway.hangs(chunk("a")))
    with elsewhere(gateway):
        command = [sys.executable, "-c", script, gateway.address]
        ended = subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert ended.stderr == b""


def test_importing_cosine_loads_nothing_and_its_client_nothing_heavy() -> None:
    script = (
        "import sys, cosine\n"
        "assert 'grpc' not in sys.modules and 'numpy' not in sys.modules\n"
        "cosine.Client, cosine.AsyncClient\n"
        "heavy = {'torch', 'transformers', 'redis', 'tokenizers', 'pydantic', 'structlog'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
