"""Strategies times loads on one park of machines: what `make sim` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cosine.core.errors import BadRequest
from cosine.core.strategy import check_demands, parse
from cosine.sim.library import Library
from cosine.sim.load import CLOSED_LOADS, OPEN_LOADS, USUAL_TOKENS, Load, closed_load, open_load
from cosine.sim.outcome import Row, run
from cosine.sim.peers import Shape
from cosine.sim.profile import Profile, equal_cost
from cosine.sim.recording import Variant, read_recording

REQUESTS_MIN = 24
REQUESTS_PER_CLIENT = 3
LOAD_NAMES = (*(f"closed-{count}" for count in CLOSED_LOADS), *(f"open-{name}" for name in OPEN_LOADS))
WITHOUT = {
    "calibration": "cosine:calibrated=no",
    "looking ahead": "cosine:lookahead=0",
    "adaptive length": "cosine:length=fixed",
    "chosen batches": "cosine:batching=continuous",
    "priors": "cosine:priors=no",
    "fusion": "cosine:cooperation=merged",
    "cooperation": "cosine:cooperation=single,drafter_count=1,first_count=1",
    "routing": "cosine:choice=all,drafter_count=5",
}  # by what it lacks
WITHOUT_SHARED_NOISE = "cosine:shared_noise=no"
ABLATIONS = ("cosine", *WITHOUT.values())
SAMPLED_ABLATIONS = (*ABLATIONS, WITHOUT_SHARED_NOISE)  # greedy drafting needs no noise


def read_library(folder: Path, temperature: float) -> Library:
    """The recordings of greedy texts, or of texts at temperature 1."""
    if temperature == 0.0:
        return Library(read_recording(folder, Variant.GREEDY))
    return Library(read_recording(folder, Variant.SHARED), read_recording(folder, Variant.UNSHARED))


def check_recorded(profile: Profile, library: Library) -> None:
    """Raises BadRequest(PROFILE) where the profile has a drafter that was not recorded."""
    if strangers := profile.drafters.keys() - set(library.drafters):
        known = ", ".join(library.drafters)
        raise BadRequest(
            "PROFILE", f"profile {profile.name}: the recordings have no drafter {min(strangers)!r}; they have {known}"
        )


def park_of(profile: Profile, strategy: str, same_cost: bool) -> Profile:
    """The park that a strategy runs on: with `same_cost` what the money of the whole profile buys it, else the profile.
    Raises BadRequest where the text names no strategy, or one that demands what the park has not."""
    row = parse(strategy)
    park = equal_cost(profile, row) if same_cost else profile
    check_demands(row, park.verifier_count, len(park.drafters), profile.drafters)
    return park


def load_named(name: str, profile: Profile, new_count: int = USUAL_TOKENS) -> Load:
    """`closed-CLIENTS`, or `open-` low, high or fluctuating, of texts of `new_count` tokens. Raises ValueError."""
    kind, _, which = name.partition("-")
    if kind == "closed" and which.isdigit() and int(which):
        return closed_load(int(which), max(REQUESTS_MIN, REQUESTS_PER_CLIENT * int(which)), new_count)
    if kind == "open" and which in OPEN_LOADS:
        return open_load(which, profile, REQUESTS_PER_CLIENT * 16, new_count)
    raise ValueError(f"there is no load {name!r}; the loads are {', '.join(LOAD_NAMES)}, and closed-N for any N")


def table(
    profile: Profile,
    library: Library,
    strategies: Sequence[str],
    loads: Sequence[Load],
    same_cost: bool,
    note: Callable[[Row], None],
    shape: Shape | None = None,
) -> list[Row]:
    """All rows, load by load; `note` hears of each as it is done. `same_cost`: see `park_of`."""
    rows = []
    for load in loads:
        for strategy in strategies:
            rows.append(run(park_of(profile, strategy, same_cost), library, strategy, load, shape)[0])
            note(rows[-1])
    return rows
