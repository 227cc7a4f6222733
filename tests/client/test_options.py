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


@pytest.mark.parametrize("options", [{"seed": -1}, {"max_new_tokens": 1.5}, {"temperature": "hot"}, {"stop": [1]}])
def test_an_option_of_the_wrong_type_is_a_bad_request(options: Any) -> None:
    with pytest.raises(BadRequest):
        build("hi", options)
