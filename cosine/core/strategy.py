"""Strategies as data: each system of the field is a row of the same knobs, to be compared on one engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cosine.core.errors import BadRequest
from cosine.core.plan import Cooperation


class Choice(Enum):
    """Which drafters work on a request."""

    NONE = "none"
    FIRST = "first"
    ALL = "all"
    ROUTED = "routed"


@dataclass(frozen=True, slots=True)
class Strategy:
    """The knobs. `adaptive` lets the controller stop drafts early, spend the verifier's rows where they are most likely
    accepted, and fall back to plain decoding where it is predicted to be faster; without it every number is fixed."""

    name: str
    source: str
    choice: Choice
    drafter_count: int = 1
    first_count: int = 0
    cooperation: Cooperation = Cooperation.SINGLE
    fusion_interval: int = 1
    depth: int = 0
    width: int = 1
    beam: int = 1
    node_budget: int = 16
    adaptive: bool = False


PLAIN = Strategy("plain", "autoregressive decoding", Choice.NONE)

VANILLA = Strategy("vanilla", "speculative sampling, arXiv 2302.01318: K = 4", Choice.FIRST, depth=4, node_budget=4)

SPECINFER = Strategy(
    "specinfer",
    "SpecInfer, arXiv 2305.09781: merged trees of all drafters, at most 64 nodes, depth 8",
    Choice.ALL,
    drafter_count=64,
    cooperation=Cooperation.MERGED,
    depth=8,
    width=1,
    node_budget=64,
)

COSINE = Strategy(
    "cosine",
    "CoSine, arXiv 2503.10325: expertise routing, confidence-based fusion, adaptive speculation",
    Choice.ROUTED,
    drafter_count=2,
    first_count=5,
    cooperation=Cooperation.FUSED,
    fusion_interval=8,
    depth=8,
    width=3,
    beam=2,
    node_budget=24,
    adaptive=True,
)

PRESETS = {strategy.name: strategy for strategy in (PLAIN, VANILLA, SPECINFER, COSINE)}


def named(name: str, default: str = "cosine") -> Strategy:
    """The preset of a name; empty takes the default. Raises BadRequest, listing the names, for an unknown one."""
    found = PRESETS.get(name or default)
    if found is None:
        known = ", ".join(PRESETS)
        raise BadRequest("UNKNOWN_STRATEGY", f"there is no strategy {name!r}; choose one of {known}", {"known": known})
    return found
