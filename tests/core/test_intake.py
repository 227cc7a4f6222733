"""Intake: what can succeed passes with nothing left open, what cannot is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cosine.core.errors import BadRequest
from cosine.core.intake import IntakeLimits, Job, ModelFacts, Request, take_in
from cosine.core.sampling import Sampling

FACTS = ModelFacts(vocab_size=100, tokens_max=20, eos_token_ids=(99,))
LIMITS = IntakeLimits(new_tokens_max=10, new_tokens_default=5)
GOOD = Request(request_id="r-1", prompt=(1, 2, 3))


def take(**changes: Any) -> Job:
    return take_in(replace(GOOD, **changes), FACTS, LIMITS)


def test_what_the_request_leaves_open_is_filled_in() -> None:
    job = take()
    assert (job.max_new_tokens, job.stop_token_ids, job.sampling) == (5, (99,), Sampling())


def test_the_default_length_shrinks_to_what_the_context_leaves() -> None:
    assert take(prompt=(1,) * 17).max_new_tokens == 3


def test_stop_tokens_join_the_models_own() -> None:
    assert take(stop_token_ids=(7, 7)).stop_token_ids == (7, 99)
    assert take(stop_token_ids=(7,), ignore_eos=True).stop_token_ids == (7,)


@pytest.mark.parametrize(
    ("changes", "reason", "field", "allowed"),
    [
        ({"request_id": ""}, "REQUEST_ID", "request_id", "1 to 128"),
        ({"request_id": "a b"}, "REQUEST_ID", "request_id", "without spaces"),
        ({"request_id": "é"}, "REQUEST_ID", "request_id", "ASCII"),
        ({"request_id": "x" * 129}, "REQUEST_ID", "request_id", "1 to 128"),
        ({"prompt": ()}, "EMPTY_PROMPT", "prompt", "at least one token"),
        ({"prompt": (1,) * 20}, "PROMPT_TOO_LONG", "prompt", "at most 19 tokens"),
        ({"prompt": (1, 100)}, "TOKEN_OUT_OF_RANGE", "prompt", "0..99"),
        ({"max_new_tokens": 0}, "MAX_NEW_TOKENS", "max_new_tokens", "1..10"),
        ({"max_new_tokens": 11}, "MAX_NEW_TOKENS", "max_new_tokens", "1..10"),
        ({"max_new_tokens": 10, "prompt": (1,) * 12}, "MAX_NEW_TOKENS", "max_new_tokens", "at most 8"),
        ({"sampling": Sampling(temperature=-1)}, "PARAMETER_OUT_OF_RANGE", "temperature", "or 0.001 to 100"),
        ({"sampling": Sampling(logit_bias=((100, 1.0),))}, "PARAMETER_OUT_OF_RANGE", "logit_bias", "0..99"),
        ({"stop": ("x",) * 17}, "STOP", "stop", "at most 16"),
        ({"stop": ("",)}, "STOP", "stop", "1..256 bytes"),
        ({"stop": ("é" * 129,)}, "STOP", "stop", "1..256 bytes"),
        ({"stop_token_ids": (1,) * 65}, "STOP_TOKEN_IDS", "stop_token_ids", "at most 64"),
        ({"stop_token_ids": (100,)}, "TOKEN_OUT_OF_RANGE", "stop_token_ids", "0..99"),
        ({"strategy": "magic"}, "UNKNOWN_STRATEGY", "strategy", "plain, vanilla"),
        ({"strategy": "cosine:colour=red"}, "UNKNOWN_KNOB", "strategy", "the knobs are"),
        ({"strategy": "cosine:depth=deep"}, "KNOB_VALUE", "strategy", "0 to 64"),
        ({"strategy": "pipeinfer:lookahead=2"}, "KNOBS_CONTRADICT", "strategy", "lookahead=0"),
        ({"priority": 11}, "PRIORITY", "priority", "-10 to 10"),
        ({"emitted": (1,) * 6}, "RESUME_TOO_LONG", "resume.token_ids", "at most 5"),
        ({"emitted": (100,)}, "TOKEN_OUT_OF_RANGE", "resume.token_ids", "0..99"),
    ],
)
def test_what_cannot_succeed_is_refused_by_name(changes: dict[str, Any], reason: str, field: str, allowed: str) -> None:
    with pytest.raises(BadRequest) as caught:
        take(**changes)
    assert (caught.value.reason, caught.value.details["field"]) == (reason, field)
    assert allowed in caught.value.message


def test_a_refusal_shows_little_of_a_long_value() -> None:
    with pytest.raises(BadRequest) as caught:
        take(strategy="x" * 10_000)
    assert len(caught.value.message) < 300
