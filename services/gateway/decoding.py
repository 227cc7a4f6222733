"""From the public messages to the core's request. Checks only what the core cannot see: oneofs and absent fields."""

from __future__ import annotations

import asyncio
import secrets

from tokenizers import Tokenizer

from cosine.core.errors import BadRequest
from cosine.core.intake import Request
from cosine.rpc.convert import sampling_from_proto
from cosine.v1.gateway_pb2 import GenerateRequest

BYTES_AT_ONCE_MAX = 16 * 1024  # longer texts are tokenized on a thread, so that the event loop goes on


def draw_absent(message: GenerateRequest) -> GenerateRequest:
    """The request with an id and a seed of its own; as such it can be recorded and run again anywhere."""
    filled = GenerateRequest()
    filled.CopyFrom(message)
    filled.request_id = message.request_id or secrets.token_hex(16)
    if not message.sampling.HasField("seed"):
        filled.sampling.seed = secrets.randbits(64)
    return filled


async def decode(message: GenerateRequest, tokenizer: Tokenizer, prompt_bytes_max: int) -> Request:
    """The request, its text tokenized. Raises BadRequest where there is no prompt, or far too much of it."""
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
    ids = await _tokenize(message.text, tokenizer, prompt_bytes_max) if prompt == "text" else message.token_ids.ids
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


async def _tokenize(text: str, tokenizer: Tokenizer, bytes_max: int) -> list[int]:
    size = len(text.encode())
    if size > bytes_max:
        raise BadRequest(
            "PROMPT_TOO_LONG",
            f"the prompt's text has {size} bytes; it must have at most {bytes_max}; shorten it",
            {"field": "text", "value": f"{size} bytes", "allowed": f"{bytes_max} bytes"},
        )
    if size <= BYTES_AT_ONCE_MAX:
        return tokenizer.encode(text).ids
    return (await asyncio.to_thread(tokenizer.encode, text)).ids
