"""The limits of a request's rules are those that types.proto states."""

from __future__ import annotations

import math

import pytest

from cosine.core.errors import BadRequest
from cosine.core.sampling import Sampling, validate


@pytest.mark.parametrize("temperature", [0.0, 0.001, 1.0, 100.0])
def test_a_temperature_of_the_contract_is_taken(temperature: float) -> None:
    validate(Sampling(temperature=temperature), 10)


@pytest.mark.parametrize("temperature", [1e-45, 0.0009, 100.1, -0.001, math.nan, math.inf])
def test_a_temperature_outside_the_contract_is_refused(temperature: float) -> None:
    with pytest.raises(BadRequest, match=r"^temperature is .*; it must be 0 \(greedy\), or 0\.001 to 100$"):
        validate(Sampling(temperature=temperature), 10)
