"""From the public messages to the core's request. Checks only what the core cannot see: oneofs and absent fields, and
what must not even be copied."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sized

from tokenizers import Tokenizer

from cosine.core.errors import BadRequest
from cosine.core.intake import IntakeLimits, ModelFacts, Request
from cosine.core.sampling import BIAS_ENTRIES_MAX
from cosine.rpc.convert import sampling_from_proto
from cosine.v1.gateway_pb2 import GenerateRequest

BYTES_AT_ONCE_MAX = 16 * 1024  # longer texts are tokenized on a thread, so that the event loop goes on


def check_sizes(message: GenerateRequest, facts: ModelFacts, limits: IntakeLimits, prompt_bytes_max: int) -> None:
    """Refuses what is far too long as it lies, in the words of `cosine.core.intake`, which checks what passes.

    Raises BadRequest.
    """
    size, tokens_max = len(message.text.encode()), facts.tokens_max
    if size > prompt_bytes_max:
        raise BadRequest(
            "PROMPT_TOO_LONG",
            f"the prompt's text has {size} bytes; it must have at most {prompt_bytes_max}; shorten it",
            {"field": "text", "value": f"{size} bytes", "allowed": f"{prompt_bytes_max} bytes"},
        )
    allowed = f"tokens, so that one more fits into the context of {tokens_max}; shorten it"
    _check_count("PROMPT_TOO_LONG", "prompt", message.token_ids.ids, tokens_max - 1, allowed, " tokens")
    bias = message.sampling.logit_bias
    if len(bias) > BIAS_ENTRIES_MAX:
        shown, allowed = f"{len(bias):g}", f"at most {BIAS_ENTRIES_MAX} entries"
        raise BadRequest(
            "PARAMETER_OUT_OF_RANGE",
            f"logit_bias is {shown}; it must be {allowed}",
            {"field": "logit_bias", "value": shown, "allowed": allowed},
        )
    _check_count("STOP", "stop", message.stop, limits.stop_count_max, "strings")
    _check_count("STOP_TOKEN_IDS", "stop_token_ids", message.stop_token_ids, limits.stop_token_ids_max, "tokens")
    _check_count("RESUME_TOO_LONG", "resume.token_ids", message.resume.token_ids, limits.new_tokens_max, "tokens")


def _check_count(reason: str, field: str, items: Sized, count_max: int, allowed: str, unit: str = "") -> None:
    if len(items) > count_max:
        shown, allowed = f"{len(items)}{unit}", f"at most {count_max} {allowed}"
        raise BadRequest(
            reason, f"{field} is {shown!r}; it must be {allowed}", {"field": field, "value": shown, "allowed": allowed}
        )


def draw_absent(message: GenerateRequest) -> GenerateRequest:
    """The request with an id and a seed of its own, and nothing that we cannot read; as such it can be recorded and run
    again anywhere."""
    filled = GenerateRequest()
    filled.CopyFrom(message)
    filled.DiscardUnknownFields()
    filled.request_id = message.request_id or secrets.token_hex(16)
    if not message.sampling.HasField("seed"):
        filled.sampling.seed = secrets.randbits(64)
    return filled


async def decode(message: GenerateRequest, tokenizer: Tokenizer) -> Request:
    """The request, its text tokenized. Raises BadRequest where there is no prompt."""
    prompt = message.WhichOneof("prompt")
    if prompt is None:
        raise BadRequest(
            "EMPTY_PROMPT",
            "the request has no prompt; send text or token_ids, or a known request_id with resume",
            {"field": "prompt", "value": "absent", "allowed": "text or token_ids"},
        )
    if message.sampling.HasField("top_k") and not message.sampling.top_k:
        raise BadRequest(
            "PARAMETER_OUT_OF_RANGE",
            "top_k is 0; it must be 1 or more, or absent",
            {"field": "top_k", "value": "0", "allowed": "1 or more, or absent"},
        )
    ids = await _tokenize(message.text, tokenizer) if prompt == "text" else message.token_ids.ids
    return Request(
        request_id=message.request_id,
        prompt=tuple(ids),
        sampling=sampling_from_proto(message.sampling),
        max_new_tokens=message.max_new_tokens if message.HasField("max_new_tokens") else None,
        stop=tuple(message.stop),
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        strategy=message.strategy,
        priority=message.priority,
        emitted=tuple(message.resume.token_ids),
    )


async def _tokenize(text: str, tokenizer: Tokenizer) -> list[int]:
    if len(text.encode()) <= BYTES_AT_ONCE_MAX:
        return tokenizer.encode(text).ids
    return (await asyncio.to_thread(tokenizer.encode, text)).ids
