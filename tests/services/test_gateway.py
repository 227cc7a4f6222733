"""A gateway between clients and a scheduler that does what each test tells it to: texts, ends, losses, resumes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from gateway_stage import LENGTH, PATIENCE_S, STOP_STRING, STOP_TOKEN, Mesh, failure, rest, running

from cosine.core.errors import BadRequest, MeshError, Unavailable
from cosine.rpc.errors import to_failure
from cosine.store.admission import AdmissionQueue
from cosine.store.connection import Store
from cosine.store.embedded import EmbeddedServer
from cosine.store.records import FINISHED_TTL_S
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import scheduler_pb2
from services.gateway.settings import GatewaySettings

GAP = (b"c", 2)  # tokens before which others never came: the scheduler is given up


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


async def test_the_record_of_a_request_is_kept_long_only_until_its_end(mesh: Mesh) -> None:
    async def ttl_s() -> int:
        return int(await mesh.store.client.ttl(mesh.store.key("request", "r")))

    call = mesh.generate(max_new_tokens=1)
    request = await mesh.scheduler.take()
    assert await ttl_s() > FINISHED_TTL_S
    mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
    assert (await rest(call))[0] == "a"
    async with asyncio.timeout(PATIENCE_S):
        while await ttl_s() > FINISHED_TTL_S:
            pass


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
    await mesh.scheduler.attached.wait()
    call = mesh.generate(timeout=0.3)
    request = await mesh.scheduler.take()
    assert request.deadline_unix_ms > 0
    assert (await failure(call)).reason == "DEADLINE_EXCEEDED"
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)


async def test_the_gateways_own_limit_ends_a_request_without_deadline(store: Store) -> None:
    async with running(store, request_timeout_s=0.3) as mesh:
        error = await failure(mesh.generate(timeout=None))
        assert (error.reason, type(error).__name__) == ("DEADLINE_EXCEEDED", "Expired")


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
async def test_clocks_that_differ_cost_a_request_nothing(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    skewed_s = time.time() + skew_s
    monkeypatch.setattr(time, "time", lambda: skewed_s)  # of the gateway and of who reads, not of Redis
    call = mesh.generate(max_new_tokens=1, timeout=None)
    request = await mesh.scheduler.take()
    assert 0 < request.deadline_unix_ms - skewed_s * 1000 <= GatewaySettings(model="toy").request_timeout_s * 1000
    mesh.scheduler.tell(request, b"a", finish_reason=LENGTH)
    assert (await rest(call))[0] == "a"


async def test_a_request_whose_time_ends_while_it_waits_is_answered_once_and_taken_back(store: Store) -> None:
    async with running(store, request_timeout_s=0.3, unheard_s=0.01) as mesh:
        await mesh.scheduler.attached.wait()
        call = mesh.generate(timeout=None)
        assert (await call.read()).HasField("started")
        error = await failure(call)
        assert (error.reason, type(error).__name__) == ("DEADLINE_EXCEEDED", "Expired")
        queue = AdmissionQueue(store)
        async with asyncio.timeout(PATIENCE_S):
            while (await queue.figures()).waiting_count:
                pass
        assert await store.client.get(store.key("attempts", "r")) == b"1"


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


async def test_attempts_are_bounded(store: Store) -> None:
    async with running(store, attempts_max=2) as mesh:
        call = mesh.generate()
        for _ in range(2):
            mesh.scheduler.tell(await mesh.scheduler.take(), *GAP)
        error = await failure(call)
        assert (error.reason, error.details["last_reason"]) == ("ATTEMPTS_EXHAUSTED", "SCHEDULER_LOST")


@pytest.mark.parametrize(
    "refusal",
    [
        BadRequest("SESSION_TOO_LONG", "shorten it", {"field": "prompt"}),
        Unavailable("NO_VERIFIER", "no verifier has had room", retry_delay_ms=5000),
        Unavailable("SCHEDULER_LOST", "a word that only a gateway has"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_a_scheduler_says_of_a_request_reaches_the_client_at_once(mesh: Mesh, refusal: MeshError) -> None:
    call = mesh.generate()
    mesh.scheduler.tell(await mesh.scheduler.take(), error=to_failure(refusal))
    error = await failure(call)
    assert type(error) is type(refusal)
    assert (error.reason, error.details, error.retry_delay_ms) == (
        refusal.reason,
        refusal.details,
        refusal.retry_delay_ms,
    )
    assert await mesh.store.client.get(mesh.store.key("attempts", "r")) == b"1"


async def test_a_gap_in_the_tokens_is_never_shown(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=3)
    mesh.scheduler.tell(await mesh.scheduler.take(), *GAP)
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


async def test_tokens_of_an_earlier_attempt_are_never_shown(mesh: Mesh) -> None:
    call = mesh.generate(max_new_tokens=2)
    first = await mesh.scheduler.take()
    mesh.scheduler.tell(first, *GAP)
    again = await mesh.scheduler.take()
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)
    mesh.scheduler.tell(first, b"zz", finish_reason=LENGTH)
    mesh.scheduler.tell(first, b"z")
    mesh.scheduler.tell(again, b"ab", finish_reason=LENGTH)
    assert (await rest(call))[:2] == ("ab", b"ab")
    assert await asyncio.wait_for(mesh.scheduler.cancelled.get(), PATIENCE_S) == ("r", 1)


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
