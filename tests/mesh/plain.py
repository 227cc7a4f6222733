"""Plain decoding, step by step in this process: the text every mesh must emit, found without any part of a mesh.

One token at a time: the toy's logits for the tokens so far, the penalties, the pick. No trees, drafts, batches or
streams. Numbers travel as 32-bit floats, so the reference rounds them likewise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosine.core.picking import RowRule, penalize, pick
from cosine.core.sampling import Sampling
from cosine.engine.base import EngineLimits, Segment
from cosine.engine.toy import EOS_TOKEN_ID, ToyEngine

TARGET = "toy:seed=1"
DRAFTERS = {f"d{index}": f"{TARGET},own={index + 5},skill=0.85" for index in range(3)}
FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
NEVER = "\N{REPLACEMENT CHARACTER}"

Row = NDArray[np.float32]


@dataclass(frozen=True)
class Plain:
    """A reference output; `rows` are the target's raw logits at each token."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    rows: tuple[Row, ...] = dataclasses.field(default=(), compare=False, repr=False)


_REMEMBERED: dict[str, Plain] = {}  # strategies of one test share their reference


def plain(prompt: str | Sequence[int], **options: Any) -> Plain:
    """What the SDK's `complete` must return for the same prompt and options, with the toy as target."""
    key = repr((prompt, sorted(options.items())))
    if key not in _REMEMBERED:
        _REMEMBERED[key] = decode(toy_rows(TARGET), prompt_ids(prompt), options)
    return _REMEMBERED[key]


def decode(
    next_row: Callable[[Sequence[int]], Row],
    prompt: Sequence[int],
    options: Mapping[str, Any],
    eos: Sequence[int] = (EOS_TOKEN_ID,),
    text_of: Callable[[Sequence[int]], str] | None = None,
) -> Plain:
    """Token by token until something ends the text. `next_row` gives the logits behind a sequence."""
    text_of = text_of or toy_text
    sampling, stops = sampling_of(options), stop_strings(options)
    ends = {*options.get("stop_token_ids", ())} | (set() if options.get("ignore_eos") else set(eos))
    output: list[int] = []
    rows: list[Row] = []
    while True:
        row = next_row([*prompt, *output])
        rows.append(row)
        logits = penalize(row, sampling, prompt, output) if sampling.path_dependent else row
        output.append(pick(logits, RowRule(sampling, len(prompt) + len(output))))
        reason = "length" if len(output) >= options.get("max_new_tokens", 256) else ""
        reason = "stop_token" if output[-1] in ends else reason
        if not reason and not stops:
            continue
        text = text_of(output)
        found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        if found:
            reason, text = "stop_string", text[: min(found)[1]]
        if reason:
            return Plain(tuple(output), text, reason, tuple(rows))


def toy_rows(source: str) -> Callable[[Sequence[int]], Row]:
    """The logits of a toy behind a sequence, from an engine of its own."""
    engine = ToyEngine(source, "", EngineLimits(tokens_max=1 << 20))

    def next_row(tokens: Sequence[int]) -> Row:
        row = engine.forward([Segment("plain", 0, tuple(tokens))]).row(0)
        engine.keep("plain", ())
        return row

    return next_row


def prompt_ids(prompt: str | Sequence[int]) -> list[int]:
    """The toy's tokens are the bytes of the text."""
    return list(prompt.encode()) if isinstance(prompt, str) else list(prompt)


def toy_text(token_ids: Sequence[int]) -> str:
    """The bytes as text; the end token has none."""
    return bytes(token for token in token_ids if token != EOS_TOKEN_ID).decode(errors="replace")


def sampling_of(options: Mapping[str, Any]) -> Sampling:
    """The rules among the options of the SDK."""
    rules = {field.name: options[field.name] for field in dataclasses.fields(Sampling) if field.name in options}
    for name in FLOATS:
        if name in rules:
            rules[name] = float(np.float32(rules[name]))
    rules["logit_bias"] = tuple((token, float(np.float32(bias))) for token, bias in rules.get("logit_bias", {}).items())
    return Sampling(**rules)


def stop_strings(options: Mapping[str, Any]) -> list[str]:
    """`stop` as a list. A half-read character looks like U+FFFD, so no stop string of a test may hold one."""
    stop = options.get("stop", ())
    stops = [stop] if isinstance(stop, str) else list(stop)
    assert not any(NEVER in text for text in stops)
    return stops
