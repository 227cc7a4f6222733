"""Bad input is refused by name, says what to do, and never touches the good requests that run beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from generations import PATIENCE_S, Asking
from grpc import StatusCode
from plain import plain

from cosine.cli.supervisor import Mesh
from cosine.client import AsyncClient
from cosine.core.errors import BadRequest, MeshError
from cosine.rpc import hello
from cosine.rpc.errors import from_rpc_error
from cosine.rpc.hello import Identity
from cosine.v1 import drafter_pb2, fusion_pb2, scheduler_pb2, types_pb2, verifier_pb2
from cosine.v1 import gateway_pb2 as pb
from cosine.v1.drafter_pb2_grpc import DrafterServiceStub
from cosine.v1.fusion_pb2_grpc import FusionServiceStub
from cosine.v1.gateway_pb2_grpc import GatewayServiceStub
from cosine.v1.scheduler_pb2_grpc import SchedulerServiceStub
from cosine.v1.verifier_pb2_grpc import VerifierServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAN, INFINITY = float("nan"), float("inf")
OVERSIZE_BYTES = 17 * 1024 * 1024

# name: fields of the request, reason, words the message must hold. All are INVALID_ARGUMENT.
REQUESTS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no prompt": ({"text": None}, "EMPTY_PROMPT", ("text or token_ids",)),
    "an empty text": ({"text": ""}, "EMPTY_PROMPT", ("prompt", "at least one token")),
    "no tokens": ({"text": None, "token_ids": {"ids": []}}, "EMPTY_PROMPT", ("at least one token",)),
    "a long text": ({"text": "x" * 2048}, "PROMPT_TOO_LONG", ("2048 tokens", "at most 2047", "shorten")),
    "long token ids": ({"text": None, "token_ids": {"ids": [1] * 5000}}, "PROMPT_TOO_LONG", ("5000", "2047")),
    "a huge text": ({"text": "x" * (2 << 20)}, "PROMPT_TOO_LONG", ("2097152 bytes", "1048576", "shorten")),
    "a token outside": ({"text": None, "token_ids": {"ids": [1, 257]}}, "TOKEN_OUT_OF_RANGE", ("257", "0..256")),
    "a token far outside": ({"text": None, "token_ids": {"ids": [2**32 - 1]}}, "TOKEN_OUT_OF_RANGE", ("0..256",)),
    "no new tokens": ({"max_new_tokens": 0}, "MAX_NEW_TOKENS", ("'0'", "1..1024")),
    "too many new tokens": ({"max_new_tokens": 1025}, "MAX_NEW_TOKENS", ("'1025'", "1..1024")),
    "no room": ({"text": "x" * 1500, "max_new_tokens": 1000}, "MAX_NEW_TOKENS", ("at most 548", "1500", "fewer")),
    "an unknown strategy": ({"strategy": "magic"}, "UNKNOWN_STRATEGY", ("magic", "cosine", "plain")),
    "too many stop strings": ({"stop": ["x"] * 17}, "STOP", ("'17'", "at most 16")),
    "an empty stop string": ({"stop": ["ok", ""]}, "STOP", ("0 bytes", "1..256")),
    "a long stop string": ({"stop": ["x" * 257]}, "STOP", ("257 bytes", "1..256")),
    "too many stop tokens": ({"stop_token_ids": [1] * 65}, "STOP_TOKEN_IDS", ("'65'", "at most 64")),
    "a stop token outside": ({"stop_token_ids": [300]}, "TOKEN_OUT_OF_RANGE", ("stop_token_ids", "300")),
    "an id with spaces": ({"request_id": "a b"}, "REQUEST_ID", ("a b", "printable")),
    "a long id": ({"request_id": "x" * 129}, "REQUEST_ID", ("1 to 128",)),
    "a resume without id": ({"resume": {"token_ids": [1]}, "request_id": ""}, "REQUEST_ID", ("1 to 128",)),
    "a resume outside": ({"resume": {"token_ids": [257]}, "request_id": "r"}, "TOKEN_OUT_OF_RANGE", ("resume",)),
    "a long resume": (
        {"resume": {"token_ids": [1] * 9}, "request_id": "r", "max_new_tokens": 8},
        "RESUME_TOO_LONG",
        ("'9'", "at most 8"),
    ),
}

# name: sampling fields, words the message must hold. All are PARAMETER_OUT_OF_RANGE.
RULES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    **{
        f"temperature {value}": ({"temperature": value}, ("temperature", f"{value:g}", "0.001 to 100"))
        for value in (-0.5, 101.0, NAN, INFINITY, -INFINITY)
    },
    **{f"top_p {value}": ({"top_p": value}, ("top_p", "(0, 1]")) for value in (0.0, -1.0, 1.5, NAN)},
    "top_k 0": ({"top_k": 0}, ("top_k", "1 or more")),
    **{f"min_p {value}": ({"min_p": value}, ("min_p", "[0, 1)")) for value in (-0.1, 1.0, NAN)},
    **{
        f"repetition_penalty {value}": ({"repetition_penalty": value}, ("repetition_penalty", "(0, 100]"))
        for value in (0.0, -1.0, 101.0, NAN)
    },
    **{
        f"{name} {value}": ({name: value}, (name, "[-100, 100]"))
        for name in ("presence_penalty", "frequency_penalty")
        for value in (-101.0, 101.0, NAN)
    },
    "logprobs 21": ({"logprobs": 21}, ("logprobs", "0..20")),
    "a bias outside": ({"logit_bias": [{"token_id": 257, "bias": 1}]}, ("logit_bias", "0..256")),
    "a bias too large": ({"logit_bias": [{"token_id": 1, "bias": 101}]}, ("logit_bias[1]", "[-100, 100]")),
    "a bias of nan": ({"logit_bias": [{"token_id": 1, "bias": NAN}]}, ("logit_bias[1]", "nan")),
    "too many biases": ({"logit_bias": [{"token_id": 1, "bias": 0}] * 1025}, ("logit_bias", "1024")),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stub(mesh: Mesh) -> AsyncIterator[Any]:
    """The public API without the SDK, and without a bound on what it sends."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(mesh.gateway_address, options=options) as channel:
        yield GatewayServiceStub(channel)


async def refusal(call: Any) -> tuple[StatusCode, MeshError]:
    """The status with which a call ends, and the error it carries."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_read_out(call), PATIENCE_S)
    return caught.value.code(), from_rpc_error(caught.value)


async def _read_out(call: Any) -> None:
    async for _ in call:
        pass


async def refused_among_good_ones(ask: Asking, call: Any) -> tuple[StatusCode, MeshError]:
    """The refusal of one call while good requests run, whose texts are checked."""
    options = {"max_new_tokens": 24, "ignore_eos": True, "temperature": 0.7}
    goods = [(f"Good {seed}. ", {**options, "seed": seed}) for seed in range(2)]
    found, _ = await asyncio.gather(refusal(call), ask.all(*goods))
    assert "Traceback" not in found[1].message
    return found


def generate(stub: Any, **fields: Any) -> Any:
    """A call that would be good but for `fields`; None leaves a field out."""
    whole = {"text": "Fine. ", "max_new_tokens": 8, **fields}
    if whole["text"] is not None and "max_new_tokens" not in fields and len(whole["text"]) > 2000:
        del whole["max_new_tokens"]
    request = pb.GenerateRequest(**{name: value for name, value in whole.items() if value is not None})
    return stub.Generate(request, timeout=PATIENCE_S)


@pytest.mark.parametrize(("fields", "reason", "words"), REQUESTS.values(), ids=REQUESTS)
async def test_a_bad_request_is_refused_by_name(
    ask: Asking, stub: Any, fields: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    code, error = await refused_among_good_ones(ask, generate(stub, **fields))
    assert (code, error.reason) == (StatusCode.INVALID_ARGUMENT, reason)
    assert [word for word in words if word not in error.message] == []
    assert {"field", "value", "allowed"} <= error.details.keys()


@pytest.mark.parametrize(("rules", "words"), RULES.values(), ids=RULES)
async def test_a_rule_out_of_range_is_refused_by_name(
    ask: Asking, stub: Any, rules: dict[str, Any], words: tuple[str, ...]
) -> None:
    code, error = await refused_among_good_ones(ask, generate(stub, sampling=rules))
    assert (code, error.reason) == (StatusCode.INVALID_ARGUMENT, "PARAMETER_OUT_OF_RANGE")
    assert [word for word in words if word not in error.message] == []


async def test_many_bad_requests_at_once_leave_the_good_ones_alone(ask: Asking, stub: Any) -> None:
    fields = [fields for fields, _, _ in REQUESTS.values()] + [{"sampling": rules} for rules, _ in RULES.values()]
    goods = [(f"Still good {seed}. ", {"max_new_tokens": 40, "seed": seed, "temperature": 1.0}) for seed in range(8)]
    refusals, _ = await asyncio.gather(
        asyncio.gather(*(refusal(generate(stub, **bad)) for bad in fields * 2)), ask.all(*goods)
    )
    assert {code for code, _ in refusals} == {StatusCode.INVALID_ARGUMENT}


async def test_a_resume_of_an_unknown_request_says_what_to_send(ask: Asking, stub: Any) -> None:
    call = stub.Generate(pb.GenerateRequest(request_id="nobody", resume={}), timeout=PATIENCE_S)
    code, error = await refused_among_good_ones(ask, call)
    assert (code, error.reason) == (StatusCode.NOT_FOUND, "UNKNOWN_REQUEST")
    assert "nobody" in error.message
    assert "resume with the full request" in error.message


async def test_a_message_over_the_size_limit_is_refused_and_the_limit_named(ask: Asking, stub: Any) -> None:
    code, error = await refused_among_good_ones(ask, generate(stub, text="x" * OVERSIZE_BYTES))
    assert code == StatusCode.RESOURCE_EXHAUSTED
    assert str(16 * 1024 * 1024) in error.message


async def test_the_sdk_names_the_size_limit_at_once(mesh: Mesh) -> None:
    async with AsyncClient(mesh.gateway_address) as client:
        with pytest.raises(BadRequest, match=str(16 * 1024 * 1024)) as caught:
            await client.complete("x" * OVERSIZE_BYTES)
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


async def test_a_deadline_that_has_passed_is_an_expired_one(ask: Asking, stub: Any) -> None:
    request = pb.GenerateRequest(text="Late. ", max_new_tokens=500, ignore_eos=True)
    for timeout_s in (0.0, 0.001, 0.01):
        code, error = await refused_among_good_ones(ask, stub.Generate(request, timeout=timeout_s))
        assert (code, error.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


# -- streams between peers

STREAMS: dict[str, tuple[str, str, Any, Any]] = {
    "scheduler": ("gateway", "Attach", SchedulerServiceStub, scheduler_pb2.AttachRequest),
    "fusion": ("scheduler", "Fuse", FusionServiceStub, fusion_pb2.FuseRequest),
    "d0": ("fusion", "Draft", DrafterServiceStub, drafter_pb2.DraftRequest),
    "verifier": ("scheduler", "Verify", VerifierServiceStub, verifier_pb2.VerifyRequest),
}
FIRST_WORK = {
    "scheduler": {"cancel": {"request_id": "r"}},
    "fusion": {"plan": {"round_id": 1}},
    "d0": {"step": {"step_id": 1}},
    "verifier": {"batch": {"batch_id": 1}},
}


def greeting(role: str, **changes: Any) -> types_pb2.Hello:
    """The Hello of a stranger who plays a role."""
    message = hello.to_proto(Identity(role, "stranger"))
    message.MergeFrom(types_pb2.Hello(**changes))
    return message


async def stream_refusal(ask: Asking, mesh: Mesh, peer_id: str, *messages: Any) -> tuple[StatusCode, MeshError]:
    """How a peer ends a stream with these messages, good requests beside it. The caller does not end it."""
    _, method, stub_class, request = STREAMS[peer_id]
    async with grpc.aio.insecure_channel(mesh.peer(peer_id).address) as channel:
        call = getattr(stub_class(channel), method)()
        sending = asyncio.create_task(_send(call, [request(**message) for message in messages]))
        found = await refused_among_good_ones(ask, call)
        await sending
        return found


async def _send(call: Any, messages: Sequence[Any]) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the peer has ended the stream
        for message in messages:
            await call.write(message)


@pytest.mark.parametrize("peer_id", STREAMS)
async def test_another_protocol_version_is_refused_with_both_named(ask: Asking, mesh: Mesh, peer_id: str) -> None:
    first = {"hello": greeting(STREAMS[peer_id][0], protocol_version=99)}
    code, error = await stream_refusal(ask, mesh, peer_id, first)
    assert (code, error.reason) == (StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")
    assert error.details == {"theirs": "99", "ours": "1"}
    assert "same release" in error.message


@pytest.mark.parametrize("peer_id", STREAMS)
async def test_another_role_is_refused_with_both_named(ask: Asking, mesh: Mesh, peer_id: str) -> None:
    code, error = await stream_refusal(ask, mesh, peer_id, {"hello": greeting("verifier")})
    assert (code, error.reason) == (StatusCode.FAILED_PRECONDITION, "ROLE")
    assert "is a verifier" in error.message
    assert f"expected a {STREAMS[peer_id][0]}" in error.message


@pytest.mark.parametrize("peer_id", STREAMS)
async def test_a_stream_without_a_greeting_is_refused(ask: Asking, mesh: Mesh, peer_id: str) -> None:
    code, error = await stream_refusal(ask, mesh, peer_id, FIRST_WORK[peer_id])
    assert (code, error.reason) == (StatusCode.FAILED_PRECONDITION, "NO_GREETING")
    assert "Hello" in error.message


@pytest.mark.parametrize("peer_id", STREAMS)
@pytest.mark.parametrize("name", ["", "x" * 129], ids=["empty", "long"])
async def test_a_peer_without_a_proper_name_is_refused(ask: Asking, mesh: Mesh, peer_id: str, name: str) -> None:
    first = greeting(STREAMS[peer_id][0])
    first.peer_id = name
    code, error = await stream_refusal(ask, mesh, peer_id, {"hello": first})
    assert (code, error.reason) == (StatusCode.FAILED_PRECONDITION, "PEER_ID")


def heavy_work(peer_id: str, count: int) -> Iterator[dict[str, Any]]:
    """Messages that take a peer longer to answer than to read."""
    names = [f"stranger-{index}" for index in range(16)]
    context = list(range(200))
    for number in range(1, count + 1):
        if peer_id == "fusion":
            item: dict[str, Any] = {"append_token_ids": context, "drafters": [f"d{number % 3}"], "depth": 40}
            items = [{**item, "session_id": f"{name}-{number}"} for name in names]
            plan = {"round_id": number, "cooperation": "COOPERATION_SINGLE", "deadline_ms": 5000, "items": items}
            yield {"plan": plan}
        elif peer_id == "d0":
            item = {"append_token_ids": context, "step_count": 40, "width": 1, "beam": 1}
            yield {"step": {"step_id": number, "items": [{**item, "session_id": name} for name in names]}}
        else:
            tree = {"token_ids": list(range(60)), "parents": list(range(-1, 59))}
            item = {"append_token_ids": context, "tree": tree}
            yield {"batch": {"batch_id": number, "items": [{**item, "session_id": name} for name in names]}}


@pytest.mark.parametrize("peer_id", ["fusion", "d0", "verifier"])
async def test_more_unanswered_work_than_credits_ends_the_stream(ask: Asking, mesh: Mesh, peer_id: str) -> None:
    first = {"hello": greeting(STREAMS[peer_id][0])}
    code, error = await stream_refusal(ask, mesh, peer_id, first, *heavy_work(peer_id, 120))
    assert (code, error.reason) == (StatusCode.RESOURCE_EXHAUSTED, "CREDITS_EXCEEDED")
    assert "64 unanswered" in error.message
    assert (await ask.one("And after it. ", max_new_tokens=20)).token_ids


@pytest.mark.parametrize("peer_id", ["d0", "verifier"])
async def test_more_sessions_in_a_message_than_a_peer_takes_end_the_stream(
    ask: Asking, mesh: Mesh, peer_id: str
) -> None:
    items = [{"session_id": f"stranger-{index}", "append_token_ids": [1]} for index in range(300)]
    code, error = await stream_refusal(ask, mesh, peer_id, *_greeted_work(peer_id, items))
    assert code == StatusCode.RESOURCE_EXHAUSTED
    assert "300" in error.message


@pytest.mark.parametrize("peer_id", ["d0", "verifier"])
async def test_a_session_that_comes_twice_in_a_message_ends_the_stream(ask: Asking, mesh: Mesh, peer_id: str) -> None:
    items = [{"session_id": "stranger", "append_token_ids": [index]} for index in range(2)]
    code, error = await stream_refusal(ask, mesh, peer_id, *_greeted_work(peer_id, items))
    assert code == StatusCode.INVALID_ARGUMENT
    assert "stranger" in error.message


async def test_many_sessions_of_many_messages_are_answered_in_several_passes(ask: Asking, mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.peer("verifier").address) as channel:
        call = VerifierServiceStub(channel).Verify()
        first, *_ = _greeted_work("verifier", [])
        await call.write(verifier_pb2.VerifyRequest(**first))
        for number in range(1, 41):
            names = [f"stranger-{number}-{index}" for index in range(10)]
            items = [{"session_id": name, "append_token_ids": [1, 2, number]} for name in names]
            await call.write(verifier_pb2.VerifyRequest(batch={"batch_id": number, "items": items}))
        assert (await call.read()).HasField("hello")
        async with asyncio.timeout(PATIENCE_S):
            verdicts = [(await call.read()).verdicts for _ in range(40)]
    for batch in verdicts:
        expected = plain([1, 2, batch.batch_id], max_new_tokens=1).token_ids
        assert [tuple(verdict.committed_token_ids) for verdict in batch.verdicts] == [expected] * 10
    await ask.one("And after it. ", max_new_tokens=20)


def _greeted_work(peer_id: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    hello_first = {"hello": greeting(STREAMS[peer_id][0])}
    if peer_id == "verifier":
        return [hello_first, {"batch": {"batch_id": 1, "items": items}}]
    steps = [{**item, "step_count": 1, "width": 1, "beam": 1} for item in items]
    return [hello_first, {"step": {"step_id": 1, "items": steps}}]


async def test_no_peer_died_of_any_of_this(mesh: Mesh) -> None:
    assert [peer.peer_id for peer in mesh.peers if peer.restart_count] == []
