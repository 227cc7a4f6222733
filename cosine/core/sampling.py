"""The rules by which a request picks tokens, and their limits. `cosine.core.picking` applies them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cosine.core.errors import BadRequest

TEMPERATURE_MIN = 0.001
TEMPERATURE_MAX = 100.0
BIAS_MAX = 100.0
PENALTY_MAX = 100.0
BIAS_ENTRIES_MAX = 1024
LOGPROBS_MAX = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """One request's rules. The defaults are greedy decoding; `top_k` 0 keeps all, `logprobs` None wants none."""

    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None

    @property
    def path_dependent(self) -> bool:
        """True where the pick depends on which tokens came before, beyond what the model sees of them."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    @property
    def filtered(self) -> bool:
        """True where top-k, top-p or min-p may remove tokens; greedy picks never lose the largest."""
        return self.temperature > 0 and (self.top_k, self.top_p, self.min_p) != (0, 1.0, 0.0)


GREEDY = Sampling()


def validate(sampling: Sampling, vocab_size: int) -> None:
    """Raises BadRequest, naming the field, its value and its range, where a rule is out of range."""
    if sampling.temperature != 0.0:
        low, high = TEMPERATURE_MIN, TEMPERATURE_MAX
        _between("temperature", sampling.temperature, low, high, f"0 (greedy), or {low:g} to {high:g}")
    _between("min_p", sampling.min_p, 0.0, math.nextafter(1.0, 0.0), "[0, 1)")
    _between("presence_penalty", sampling.presence_penalty, -PENALTY_MAX, PENALTY_MAX)
    _between("frequency_penalty", sampling.frequency_penalty, -PENALTY_MAX, PENALTY_MAX)
    _between("top_p", sampling.top_p, math.nextafter(0.0, 1.0), 1.0, "(0, 1]")
    _between("repetition_penalty", sampling.repetition_penalty, math.nextafter(0.0, 1.0), 100.0, "(0, 100]")
    if sampling.top_k < 0:
        raise _out_of_range("top_k", sampling.top_k, "1 or more, or absent")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= LOGPROBS_MAX:
        raise _out_of_range("logprobs", sampling.logprobs, f"0..{LOGPROBS_MAX}")
    _validate_bias(sampling.logit_bias, vocab_size)


def _validate_bias(logit_bias: tuple[tuple[int, float], ...], vocab_size: int) -> None:
    if len(logit_bias) > BIAS_ENTRIES_MAX:
        raise _out_of_range("logit_bias", len(logit_bias), f"at most {BIAS_ENTRIES_MAX} entries")
    for token, bias in logit_bias:
        _between(f"logit_bias[{token}]", bias, -BIAS_MAX, BIAS_MAX)
        if not 0 <= token < vocab_size:
            raise _out_of_range("logit_bias", token, f"token ids 0..{vocab_size - 1}")


def _between(field: str, value: float, low: float, high: float, shown: str = "") -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise _out_of_range(field, value, shown or f"[{low:g}, {high:g}]")


def _out_of_range(field: str, value: float, allowed: str) -> BadRequest:
    return BadRequest(
        "PARAMETER_OUT_OF_RANGE",
        f"{field} is {value:g}; it must be {allowed}",
        {"field": field, "value": f"{value:g}", "allowed": allowed},
    )
