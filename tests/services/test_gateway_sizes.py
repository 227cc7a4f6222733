"""What is far too long is refused where it lies: in the core's words, and before a copy of it is made."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_stage import PATIENCE_S, Mesh, failure, running

from cosine.core.errors import BadRequest
from cosine.core.intake import IntakeLimits, ModelFacts, take_in
from cosine.store.connection import Store
from cosine.text.tokenizer import load_tokenizer
from cosine.v1 import gateway_pb2 as pb
from services.gateway import service
from services.gateway.decoding import check_sizes, decode, draw_absent

FACTS, LIMITS = ModelFacts(vocab_size=257, tokens_max=2048, eos_token_ids=(256,)), IntakeLimits()
TEXT_BYTES_MAX = 1 << 20

# name: the largest that is taken, as fields of the request.
LARGEST: dict[str, dict[str, Any]] = {
    "token_ids": {"token_ids": {"ids": [1] * 2047}, "max_new_tokens": 1},
    "logit_bias": {"text": "hi", "sampling": {"logit_bias": [{"token_id": 1, "bias": 1}] * 1024}},
    "stop": {"text": "hi", "stop": ["x"] * 16},
    "stop_token_ids": {"text": "hi", "stop_token_ids": [1] * 64},
    "resume": {"text": "hi", "resume": {"token_ids": [1] * 1024}, "max_new_tokens": 1024},
}
# name: one more than that, and the reason of the refusal.
TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "token_ids": ({"token_ids": {"ids": [1] * 2048}}, "PROMPT_TOO_LONG"),
    "logit_bias": ({"text": "hi", "sampling": {"logit_bias": [{"token_id": 1}] * 1025}}, "PARAMETER_OUT_OF_RANGE"),
    "stop": ({"text": "hi", "stop": ["x"] * 17}, "STOP"),
    "stop_token_ids": ({"text": "hi", "stop_token_ids": [1] * 65}, "STOP_TOKEN_IDS"),
    "resume": ({"text": "hi", "resume": {"token_ids": [1] * 1025}, "max_new_tokens": 1024}, "RESUME_TOO_LONG"),
}


def message(fields: dict[str, Any]) -> pb.GenerateRequest:
    return pb.GenerateRequest(request_id="r", strategy="plain", **fields)


async def taken_in(request: pb.GenerateRequest) -> None:
    """The core's own opinion of a request."""
    take_in(await decode(draw_absent(request), load_tokenizer("toy")), FACTS, LIMITS)


@pytest.mark.parametrize("fields", LARGEST.values(), ids=LARGEST)
async def test_the_largest_that_the_core_takes_is_let_through(fields: dict[str, Any]) -> None:
    check_sizes(message(fields), FACTS, LIMITS, TEXT_BYTES_MAX)
    await taken_in(message(fields))


@pytest.mark.parametrize(("fields", "reason"), TOO_LARGE.values(), ids=TOO_LARGE)
async def test_one_more_is_refused_in_the_core_s_words(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest) as ours:
        check_sizes(message(fields), FACTS, LIMITS, TEXT_BYTES_MAX)
    with pytest.raises(BadRequest) as cores:
        await taken_in(message(fields))
    assert ours.value.reason == reason
    assert (ours.value.reason, ours.value.message) == (cores.value.reason, cores.value.message)
    assert ours.value.details == cores.value.details


@pytest.mark.parametrize(
    ("fields", "reason"),
    [*TOO_LARGE.values(), ({"text": "x" * 1001}, "PROMPT_TOO_LONG")],
    ids=[*TOO_LARGE, "text"],
)
async def test_what_is_too_large_is_refused_before_it_is_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], reason: str
) -> None:
    copied: list[str] = []

    def copy(_: object, request: pb.GenerateRequest) -> pb.GenerateRequest:
        copied.append(request.request_id)
        return request

    monkeypatch.setattr(service.GatewayServicer, "_whole", copy)
    async with running(store, prompt_bytes_max=1000) as mesh:
        error = await failure(mesh.stub.Generate(message(fields), timeout=PATIENCE_S))
    assert (error.reason, copied) == (reason, [])


class Caller:
    """A call without metadata or deadline."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None


async def test_a_refusal_on_its_way_out_does_not_hold_what_was_refused(mesh: Mesh) -> None:
    servicer = mesh.service.servicers[0][1]
    with pytest.raises(BadRequest) as refusal:
        await anext(servicer.Generate(message({"token_ids": {"ids": [1] * 5000}}), Caller()))
    trace, held = refusal.value.__traceback__, []
    while trace is not None:
        values = trace.tb_frame.f_locals.values()
        held += [trace.tb_frame.f_code.co_name for value in values if isinstance(value, pb.GenerateRequest)]
        trace = trace.tb_next
    assert held == []


def test_what_nobody_here_can_read_is_not_recorded() -> None:
    unknown = pb.GenerateRequest.FromString(b"\xfa\x7f\x10" + b"x" * 16)  # a string in field 2047
    assert b"x" * 16 in unknown.SerializeToString()
    assert b"x" * 16 not in draw_absent(unknown).SerializeToString()
