"""Options become messages; what was not asked for is not sent."""

from __future__ import annotations

from typing import Any

import pytest

from cosine.client.options import build
from cosine.core.errors import BadRequest
from cosine.v1 import gateway_pb2 as pb


def test_only_what_was_asked_for_is_sent() -> None:
    request = build("hi", {"request_id": "r", "seed": 7, "temperature": 0.5, "stop": "end", "logit_bias": {3: -1.0}})
    assert request == pb.GenerateRequest(
        request_id="r",
        text="hi",
        stop=["end"],
        sampling={"temperature": 0.5, "seed": 7, "logit_bias": [{"token_id": 3, "bias": -1.0}]},
    )


def test_token_ids_are_a_prompt_even_where_there_are_none() -> None:
    assert build([1, 2], {}).token_ids.ids == [1, 2]
    assert build([], {}).WhichOneof("prompt") == "token_ids"


def test_id_and_seed_are_drawn_anew() -> None:
    first, second = build("hi", {}), build("hi", {})
    assert first.request_id != second.request_id
    assert first.sampling.seed != second.sampling.seed


def test_an_unknown_option_is_named() -> None:
    options: Any = {"temprature": 1.0}
    with pytest.raises(TypeError, match="temprature"):
        build("hi", options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed is -1; it must be a whole number from 0 to 18446744073709551615"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5; it must be a whole number from 0 to 4294967295"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"priority": 2**40}, "priority is 1099511627776; it must be a whole number from -2147483648 to 2147483647"),
        ({"ignore_eos": "yes"}, "ignore_eos is 'yes'; it must be True or False"),
        ({"strategy": "\ud800"}, "strategy is '\\ud800'; it must be text that UTF-8 can hold"),
        ({"stop": [1]}, "stop is [1]; it must be a list, each text that UTF-8 can hold"),
        (
            {"stop_token_ids": b"ab"},
            "stop_token_ids is b'ab'; it must be a list, each a whole number from 0 to 4294967295",
        ),
        ({"logit_bias": {-1: 0.5}}, "logit_bias is -1; it must be a whole number from 0 to 4294967295"),
        ({"logit_bias": {7: "much"}}, "logit_bias[7] is 'much'; it must be a number"),
        ({"logit_bias": [7]}, "logit_bias is [7]; it must be a mapping of token ids to numbers"),
        ({"timeout": 0}, "timeout is 0; it must be a number of seconds above 0, or absent"),
        ({"timeout": float("nan")}, "timeout is nan; it must be a number of seconds above 0, or absent"),
        ({"timeout": "long"}, "timeout is 'long'; it must be a number of seconds above 0, or absent"),
    ],
)
def test_an_option_that_its_field_cannot_hold_is_refused_by_name(options: Any, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build("hi", options)
    assert (caught.value.reason, caught.value.message) == ("BAD_OPTION", words)
    assert words.startswith(caught.value.details["field"])


@pytest.mark.parametrize("prompt", [[-1], [1.5], None, "\ud800"], ids=["negative", "fraction", "none", "surrogate"])
def test_a_prompt_that_is_neither_text_nor_token_ids_is_refused(prompt: Any) -> None:
    with pytest.raises(BadRequest, match=r"^prompt is "):
        build(prompt, {})


@pytest.mark.parametrize(
    "prompt", [b"hello", bytearray(b"hello"), memoryview(b"hello")], ids=lambda it: type(it).__name__
)
def test_bytes_are_no_prompt_and_the_refusal_says_what_is(prompt: Any) -> None:
    with pytest.raises(BadRequest, match=r"^prompt is .*; it must be text \(str\), or a list, each a whole number"):
        build(prompt, {})


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(BadRequest) as caught:
        build([-1] * 1000, {})
    assert len(caught.value.message) < 200


def test_zeros_are_sent_as_zeros() -> None:
    sampling = build("hi", {"top_k": 0, "top_p": 0.0, "seed": 0, "logprobs": 0}).sampling
    assert all(sampling.HasField(name) for name in ("top_k", "top_p", "seed", "logprobs"))
