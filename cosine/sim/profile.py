"""What a machine park costs and how long its forward passes and messages take, read from a YAML file.

In the file every figure is `{value: ..., source: "..."}`: nobody has to guess where a number comes from. On the
objects it is a plain float. Nothing here knows strategies, except `equal_cost`, which spends one sum of money on each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cosine.core.errors import BadRequest
from cosine.core.strategy import Choice, Strategy
from cosine.text.strict_yaml import read_mapping

PROFILES = Path(__file__).resolve().parents[2] / "bench" / "profiles"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a folder of results is called so
SOURCE_CHARACTERS_MIN = 8
FIGURE_MAX = 1e9  # what is larger is a slip of the pen


@dataclass(frozen=True, slots=True)
class VerifierDevice:
    """One verifier. `count` devices at `price_usd` each run one forward pass together; the times are the whole's:
    `base_ms` whatever it holds, `row_ms` per token run, `kilotoken_ms` per 1000 cached tokens read."""

    device: str
    count: float
    price_usd: float
    base_ms: float
    row_ms: float
    kilotoken_ms: float

    @property
    def money_usd(self) -> float:
        return self.count * self.price_usd

    def forward_ms(self, row_count: float, cached_token_count: float) -> float:
        """How long one forward pass takes."""
        return self.base_ms + self.row_ms * row_count + self.kilotoken_ms * cached_token_count / 1000

    def times(self, factor: float) -> VerifierDevice:
        """The same device, all times multiplied."""
        return replace(
            self,
            base_ms=self.base_ms * factor,
            row_ms=self.row_ms * factor,
            kilotoken_ms=self.kilotoken_ms * factor,
        )


@dataclass(frozen=True, slots=True)
class DrafterDevice:
    """A pool of `count` devices, each at `price_usd` and with the whole model. The times are one device's; the pool
    shares the sessions of a step evenly, so that its rows and cached tokens cost a `count`-th and `base_ms` stays."""

    device: str
    count: float
    price_usd: float
    base_ms: float
    row_ms: float
    kilotoken_ms: float

    @property
    def money_usd(self) -> float:
        return self.count * self.price_usd

    def forward_ms(self, row_count: float, cached_token_count: float) -> float:
        """How long one step of the pool takes."""
        shared_ms = self.row_ms * row_count + self.kilotoken_ms * cached_token_count / 1000
        return self.base_ms + shared_ms / self.count


@dataclass(frozen=True, slots=True)
class Link:
    """A network link: latency one way, and megabits per second."""

    latency_ms: float
    mbps: float

    def transfer_ms(self, byte_count: float) -> float:
        """How long a message takes, one way."""
        return self.latency_ms + byte_count * 8 / (self.mbps * 1000)


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine park. `drafter_link` joins fusion and drafters, `verifier_link` scheduler and verifier.

    `time_scale` is for a mesh in real time on a machine too slow for the profile: all times are multiplied by it there,
    and what is measured is divided by it. `verifier_count` verifiers stand side by side, each as `verifier` says.
    """

    name: str
    source: str
    time_scale: float
    verifier: VerifierDevice
    drafters: dict[str, DrafterDevice]
    drafter_link: Link
    verifier_link: Link
    verifier_count: int = 1

    @property
    def money_usd(self) -> float:
        """Price of all devices."""
        drafters_usd = sum(drafter.money_usd for drafter in self.drafters.values())
        return self.verifier_count * self.verifier.money_usd + drafters_usd


def equal_cost(profile: Profile, strategy: Strategy) -> Profile:
    """The park that a strategy gets for the same money; drafter pools come in the profile's order, the one that the
    strategy names before all.

    Pools that the strategy never uses are sold, and all verifier times divided by 1 + saved / verifier's price.
    A strategy with several verifiers per request shares the target's devices among them: each takes so many times
    longer. Both rules look at money alone; that several verifiers hold the weights several times is not charged.

    Example: a verifier of 60,000 USD and pools of 5,000 USD each for five drafters, a pass of 25 ms. `cosine` uses all
    five: 25 ms. `vanilla` uses one, sells four: 25 / (1 + 20000 / 60000) = 18.75 ms. `plain` sells all five: 17.65 ms.
    `dsi` with 7 verifiers: 7 verifiers at 131.25 ms each.
    """
    by_use = sorted(profile.drafters.items(), key=lambda pool: pool[0] != strategy.drafter)
    used = dict(by_use[: pools_used(strategy, len(profile.drafters))])
    saved_usd = sum(drafter.money_usd for name, drafter in profile.drafters.items() if name not in used)
    growth = 1 + saved_usd / profile.verifier.money_usd
    faster = profile.verifier.times(strategy.verifiers / growth)
    price_usd = profile.verifier.price_usd * growth / strategy.verifiers
    verifier = replace(faster, price_usd=price_usd)
    return replace(profile, drafters=used, verifier=verifier, verifier_count=strategy.verifiers)


def pools_used(strategy: Strategy, pool_count: int) -> int:
    """How many of the drafter pools a strategy ever works with: a routed one with all, whoever takes part at a time."""
    if strategy.choice is Choice.NONE:
        return 0
    if strategy.choice is Choice.FIRST:
        return min(1, pool_count)
    if strategy.choice is Choice.ALL:
        return min(strategy.drafter_count, pool_count)
    return pool_count


def profile_path(name: str) -> Path:
    """A profile of the project by name, or any file."""
    ours = PROFILES / f"{name}.yaml"
    return ours if ours.is_file() else Path(name)


def read_profile(path: Path) -> Profile:
    """The profile of a YAML file. Raises BadRequest(PROFILE), naming file and key, where a figure is missing, unknown,
    negative, too large, not a number, or has no source; NotFound(PROFILE) where there is no file."""
    content = read_mapping(path, "PROFILE", "a profile is a mapping with keys like verifier and drafters")
    try:
        return _ProfileFile.model_validate(content).profile()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise BadRequest("PROFILE", f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from error


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number to compute with")
    return value


def _plain(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name; take A-Z a-z 0-9 . _ - and begin with a letter or digit")
    return name


def _sourced(text: str) -> str:
    if len(text.strip()) < SOURCE_CHARACTERS_MIN:
        raise ValueError("say where the figure comes from")
    return text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Figure(_Entry):
    """Zero or more."""

    value: Annotated[float, AfterValidator(_finite), Field(ge=0, le=FIGURE_MAX)]
    source: Annotated[str, AfterValidator(_sourced)]


class _PositiveFigure(_Figure):
    value: Annotated[float, AfterValidator(_finite), Field(gt=0, le=FIGURE_MAX)]


class _CountFigure(_Figure):
    value: Annotated[int, Field(ge=1, le=FIGURE_MAX)]


class _Device(_Entry):
    device: Annotated[str, Field(min_length=1)]
    count: _CountFigure
    price_usd: _PositiveFigure
    base_ms: _PositiveFigure
    row_ms: _Figure
    kilotoken_ms: _Figure

    def figures(self) -> Mapping[str, Any]:
        values = {name: float(getattr(self, name).value) for name in _Device.model_fields if name != "device"}
        return {"device": self.device, **values}


class _LinkEntry(_Entry):
    latency_ms: _Figure
    mbps: _PositiveFigure

    def link(self) -> Link:
        return Link(self.latency_ms.value, self.mbps.value)


class _ProfileFile(_Entry):
    name: Annotated[str, AfterValidator(_plain)]
    source: Annotated[str, AfterValidator(_sourced)]
    time_scale: _PositiveFigure
    verifier: _Device
    drafters: Annotated[dict[str, _Device], Field(min_length=1)]
    drafter_link: _LinkEntry
    verifier_link: _LinkEntry

    def profile(self) -> Profile:
        return Profile(
            self.name,
            self.source,
            self.time_scale.value,
            VerifierDevice(**self.verifier.figures()),
            {name: DrafterDevice(**device.figures()) for name, device in self.drafters.items()},
            self.drafter_link.link(),
            self.verifier_link.link(),
        )
