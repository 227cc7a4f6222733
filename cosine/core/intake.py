"""What a request must satisfy before the mesh spends anything on it, and what is filled in where it is silent.

Pure: the request has been decoded and tokenized, the seed drawn; limits and facts of the model are arguments. Every
refusal is a BadRequest that names the field, its value, what is allowed and what to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cosine.core import sampling as rules
from cosine.core.errors import BadRequest
from cosine.core.sampling import Sampling
from cosine.core.strategy import parse

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
STRATEGY_CHARS_MAX = 256
PRIORITY_MAX = 10
SHOWN_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The target, as far as a request depends on it. `tokens_max` is prompt and output together."""

    vocab_size: int
    tokens_max: int
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds of one request; see `GenerateRequest` in gateway.proto."""

    new_tokens_max: int = 1024
    new_tokens_default: int = 256
    stop_count_max: int = 16
    stop_bytes_max: int = 256
    stop_token_ids_max: int = 64


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request. `max_new_tokens` None asks for the default; `emitted` are tokens the client already holds."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling = rules.GREEDY
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    strategy: str = ""
    priority: int = 0
    emitted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A request that can succeed, nothing left open: `stop_token_ids` include the model's own where they count."""

    request_id: str
    prompt: tuple[int, ...]
    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    strategy: str
    priority: int
    emitted: tuple[int, ...]


def take_in(request: Request, facts: ModelFacts, limits: IntakeLimits) -> Job:
    """The job a request asks for. Raises BadRequest."""
    check_request_id(request.request_id)
    _check_prompt(request.prompt, facts)
    rules.validate(request.sampling, facts.vocab_size)
    max_new_tokens = _new_tokens(request, facts, limits)
    _check_stop(request.stop, limits)
    _check_stop_token_ids(request.stop_token_ids, facts, limits)
    _check_strategy(request.strategy)
    if abs(request.priority) > PRIORITY_MAX:
        raise _refusal("PRIORITY", "priority", request.priority, f"{-PRIORITY_MAX} to {PRIORITY_MAX}")
    _check_tokens("resume.token_ids", request.emitted, facts)
    if len(request.emitted) > max_new_tokens:
        raise _refusal("RESUME_TOO_LONG", "resume.token_ids", len(request.emitted), f"at most {max_new_tokens} tokens")
    own = () if request.ignore_eos else facts.eos_token_ids
    return Job(
        request_id=request.request_id,
        prompt=request.prompt,
        sampling=request.sampling,
        max_new_tokens=max_new_tokens,
        stop=request.stop,
        stop_token_ids=tuple(sorted({*own, *request.stop_token_ids})),
        strategy=request.strategy,
        priority=request.priority,
        emitted=request.emitted,
    )


def check_request_id(request_id: str) -> None:
    """Raises BadRequest where the id is empty, long, or not printable ASCII without spaces."""
    if not REQUEST_ID.fullmatch(request_id):
        raise _refusal("REQUEST_ID", "request_id", request_id, "1 to 128 printable ASCII characters without spaces")


def _check_prompt(prompt: tuple[int, ...], facts: ModelFacts) -> None:
    if not prompt:
        raise _refusal("EMPTY_PROMPT", "prompt", "empty", "at least one token; send text or token_ids")
    if len(prompt) >= facts.tokens_max:
        raise _refusal(
            "PROMPT_TOO_LONG",
            "prompt",
            f"{len(prompt)} tokens",
            f"at most {facts.tokens_max - 1} tokens, so that one more fits into the context of {facts.tokens_max}; "
            "shorten it",
        )
    _check_tokens("prompt", prompt, facts)


def _check_tokens(field: str, token_ids: tuple[int, ...], facts: ModelFacts) -> None:
    for token in token_ids:
        if not 0 <= token < facts.vocab_size:
            raise _refusal("TOKEN_OUT_OF_RANGE", field, token, f"token ids 0..{facts.vocab_size - 1} of the target")


def _new_tokens(request: Request, facts: ModelFacts, limits: IntakeLimits) -> int:
    room = facts.tokens_max - len(request.prompt)
    if request.max_new_tokens is None:
        return min(limits.new_tokens_default, limits.new_tokens_max, room)
    if not 1 <= request.max_new_tokens <= limits.new_tokens_max:
        raise _refusal("MAX_NEW_TOKENS", "max_new_tokens", request.max_new_tokens, f"1..{limits.new_tokens_max}")
    if request.max_new_tokens > room:
        raise _refusal(
            "MAX_NEW_TOKENS",
            "max_new_tokens",
            request.max_new_tokens,
            f"at most {room} beside a prompt of {len(request.prompt)} tokens (context of {facts.tokens_max}); "
            "ask for fewer, or shorten the prompt",
        )
    return request.max_new_tokens


def _check_stop(stop: tuple[str, ...], limits: IntakeLimits) -> None:
    if len(stop) > limits.stop_count_max:
        raise _refusal("STOP", "stop", len(stop), f"at most {limits.stop_count_max} strings")
    for text in stop:
        if not 1 <= len(text.encode()) <= limits.stop_bytes_max:
            raise _refusal(
                "STOP", "stop", f"a string of {len(text.encode())} bytes", f"1..{limits.stop_bytes_max} bytes"
            )


def _check_stop_token_ids(token_ids: tuple[int, ...], facts: ModelFacts, limits: IntakeLimits) -> None:
    if len(token_ids) > limits.stop_token_ids_max:
        raise _refusal(
            "STOP_TOKEN_IDS", "stop_token_ids", len(token_ids), f"at most {limits.stop_token_ids_max} tokens"
        )
    _check_tokens("stop_token_ids", token_ids, facts)


def _check_strategy(text: str) -> None:
    if len(text) > STRATEGY_CHARS_MAX:
        raise _refusal("UNKNOWN_STRATEGY", "strategy", text, f"at most {STRATEGY_CHARS_MAX} characters")
    try:
        parse(text)
    except BadRequest as error:
        allowed = error.details.get("known", error.message)
        details = {"field": "strategy", "value": text, "allowed": allowed}
        raise BadRequest(error.reason, error.message, details) from error


def _refusal(reason: str, field: str, value: str | int, allowed: str) -> BadRequest:
    shown = str(value) if len(str(value)) <= SHOWN_CHARS_MAX else f"{str(value)[:SHOWN_CHARS_MAX]}…"
    return BadRequest(
        reason, f"{field} is {shown!r}; it must be {allowed}", {"field": field, "value": shown, "allowed": allowed}
    )
