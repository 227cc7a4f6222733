"""What is asked of a mesh: so many requests at a time, or requests that come by themselves at a rate.

Rates are shares of what plain decoding could serve on the unchanged profile, so that they are the same for all
strategies, and the simulator's; the paper's own rates are not known. All times are the profile's.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cosine.core.errors import BadRequest
from cosine.sim.load import OPEN_LOADS, USUAL_BATCH, plain_tokens_per_s
from cosine.sim.profile import Profile

PHASE_ARRIVALS = USUAL_BATCH  # a fluctuating load changes its rate whenever so many would have come on average
OPEN = {f"open-{name}": shares for name, shares in OPEN_LOADS.items()}
CLOSED = re.compile(r"closed-([1-9]\d?)")
SAMPLED = "-t1"
TIME_SCALE_LEAST = 12.0  # with less, what messages take this machine (some 17 ms a round) shows: 16 % at 7, 6 % at 12
DEFAULT_LOADS = ("closed-1", "closed-2", "closed-4", "closed-8", "closed-16", *OPEN)
FIRST_LOADS = ("closed-1", "closed-4", "closed-8", "open-high")


@dataclass(frozen=True, slots=True)
class Load:
    """`clients` requests at a time, or arrivals at `shares` of the capacity, phase after phase."""

    name: str
    clients: int = 0
    shares: tuple[float, ...] = ()
    temperature: float = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self.shares)

    def time_scale(self, profile: Profile) -> float:
        """How slow the motion must be. The profile's is for USUAL_BATCH requests at a time; fewer are less to compute
        in real time, by the root of their number, since they share passes less."""
        at_once = self.clients or USUAL_BATCH / 2
        return min(profile.time_scale, max(TIME_SCALE_LEAST, profile.time_scale * math.sqrt(at_once / USUAL_BATCH)))


def parse_load(name: str) -> Load:
    """The load of a name: closed-N, open-low, open-high or open-fluctuating, with -t1 behind it at temperature 1.

    Raises BadRequest.
    """
    base = name.removesuffix(SAMPLED)
    temperature = 1.0 if base != name else 0.0
    closed = CLOSED.fullmatch(base)
    if closed:
        return Load(name, clients=int(closed[1]), temperature=temperature)
    if base in OPEN:
        return Load(name, shares=OPEN[base], temperature=temperature)
    known = ", ".join(("closed-N", *OPEN))
    raise BadRequest("LOAD", f"there is no load {name!r}; take {known}, each also with {SAMPLED} for temperature 1")


def capacity_per_s(profile: Profile, token_count: int) -> float:
    """Requests of so many tokens that plain decoding serves per second on the profile, 16 at a time."""
    return plain_tokens_per_s(profile) / token_count


def arrivals(shares: Sequence[float], capacity: float, duration_s: float, seed: int) -> list[float]:
    """Times at which requests come, in seconds from the start: a Poisson process whose rate is piecewise constant."""
    dice = random.Random(seed)
    phase_s = PHASE_ARRIVALS / (capacity * sum(shares) / len(shares))
    times: list[float] = []
    now, phase = 0.0, 0
    while True:
        hazard = dice.expovariate(1.0)
        while hazard > 0:
            rate = capacity * shares[phase % len(shares)]
            left_s = (phase + 1) * phase_s - now
            if hazard <= rate * left_s:
                now, hazard = now + hazard / rate, 0.0
            else:
                now, hazard, phase = (phase + 1) * phase_s, hazard - rate * left_s, phase + 1
        if now >= duration_s:
            return times
        times.append(now)
