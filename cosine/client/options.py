"""What a caller may ask for, and the message it becomes. Checks what the message can hold and the time allowed; other
ranges are checked by the gateway. Either way the refusal names the field."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cosine.core.errors import BadRequest
from cosine.v1 import gateway_pb2 as pb

SAMPLING = (
    "temperature",
    "seed",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
)
REQUEST = ("request_id", "max_new_tokens", "stop", "stop_token_ids", "ignore_eos", "strategy", "priority")
BYTES = (bytes, bytearray, memoryview)
SHOWN_CHARS_MAX = 64
ALLOWED = {
    FieldDescriptor.TYPE_UINT64: f"a whole number from 0 to {2**64 - 1}",
    FieldDescriptor.TYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
    FieldDescriptor.TYPE_SINT32: f"a whole number from {-(2**31)} to {2**31 - 1}",
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_BOOL: "True or False",
    FieldDescriptor.TYPE_STRING: "text that UTF-8 can hold",
}


class Options(TypedDict, total=False):
    """Options of a generation; what is absent takes the mesh's default (greedy, 256 tokens, its own strategy).

    `timeout` is in seconds, above 0, and counts for the whole generation, resumes included. `logprobs` asks for that
    many of the most probable tokens at each position. `seed` absent: a random one; same seed, same text. See
    gateway.proto.
    """

    temperature: float
    seed: int
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    logprobs: int
    max_new_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    strategy: str
    priority: int
    request_id: str
    timeout: float | None


def build(prompt: str | Sequence[int], options: Options) -> pb.GenerateRequest:
    """The request, with an id and a seed of its own where the caller gave none. Raises BadRequest, TypeError."""
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    unknown = given.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}; known are {', '.join(Options.__annotations__)}")
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    _check_timeout(given.get("timeout"))
    defaults = {"request_id": secrets.token_hex(16), "seed": secrets.randbits(64)}
    given = {**defaults, **given}
    request = pb.GenerateRequest()
    for name in REQUEST:
        _fill(request, name, given)
    for name in SAMPLING:
        _fill(request.sampling, name, given)
    biases = given.get("logit_bias", {})
    if not isinstance(biases, Mapping):
        raise _refusal("logit_bias", biases, "a mapping of token ids to numbers")
    for token, value in biases.items():
        bias = request.sampling.logit_bias.add()
        _fill(bias, "token_id", {"token_id": token}, "logit_bias")
        _fill(bias, "bias", {"bias": value}, f"logit_bias[{token}]")
    if isinstance(prompt, str):
        _fill(request, "text", {"text": prompt}, "prompt")
    else:
        _fill(request.token_ids, "ids", {"ids": prompt}, "prompt", "text (str), or ")
        request.token_ids.SetInParent()
    return request


def _fill(message: Message, name: str, given: Mapping[str, Any], shown_name: str = "", other: str = "") -> None:
    """Sets a field of the message to what was given. Raises BadRequest where it cannot hold that. `other` is allowed in
    its place."""
    if name not in given:
        return
    field = message.DESCRIPTOR.fields_by_name[name]
    try:
        if field.is_repeated and isinstance(given[name], BYTES):
            raise TypeError("bytes would pass for a list of numbers")
        if field.is_repeated:
            getattr(message, name).extend(given[name])
        else:
            setattr(message, name, given[name])
    except (TypeError, ValueError) as error:
        allowed = other + ("a list, each " if field.is_repeated else "") + ALLOWED[field.type]
        raise _refusal(shown_name or name, given[name], allowed) from error


def _check_timeout(timeout: Any) -> None:
    if timeout is None:
        return
    if not isinstance(timeout, int | float) or not (math.isfinite(timeout) and timeout > 0):
        raise _refusal("timeout", timeout, "a number of seconds above 0, or absent")


def _refusal(name: str, value: object, allowed: str) -> BadRequest:
    shown = repr(value)
    shown = shown if len(shown) <= SHOWN_CHARS_MAX else shown[: SHOWN_CHARS_MAX - 1] + "…"
    message = f"{name} is {shown}; it must be {allowed}"
    return BadRequest("BAD_OPTION", message, {"field": name, "value": shown, "allowed": allowed})
