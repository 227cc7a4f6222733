"""What a caller may ask for, and the message it becomes. Ranges are checked by the gateway, which names the field."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cosine.core.errors import BadRequest
from cosine.v1 import gateway_pb2 as pb
from cosine.v1 import types_pb2 as types

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


class Options(TypedDict, total=False):
    """Options of a generation; what is absent takes the mesh's default (greedy, 256 tokens, its own strategy).

    `timeout` is in seconds and counts for the whole generation, resumes included. `logprobs` asks for that many of the
    most probable tokens at each position. `seed` absent: a random one; same seed, same text. See gateway.proto.
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
    bias: Mapping[int, float] = given.get("logit_bias", {})
    defaults = {"request_id": secrets.token_hex(16), "seed": secrets.randbits(64)}
    given = {**defaults, **given}
    try:
        sampling = types.Sampling(
            **{key: given[key] for key in SAMPLING if key in given},
            logit_bias=[types.LogitBias(token_id=token, bias=value) for token, value in bias.items()],
        )
        request = pb.GenerateRequest(**{key: given[key] for key in REQUEST if key in given}, sampling=sampling)
        if isinstance(prompt, str):
            request.text = prompt
        else:
            request.token_ids.ids.extend(prompt)
            request.token_ids.SetInParent()
    except (TypeError, ValueError) as error:
        raise BadRequest("BAD_OPTION", f"an option has the wrong type or does not fit its field: {error}") from error
    return request
