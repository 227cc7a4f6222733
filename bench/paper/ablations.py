"""What each part of cosine brings: cosine again, without that part, on the same hardware."""

from __future__ import annotations

from dataclasses import dataclass

from bench.paper.loads import SAMPLED
from cosine.sim.table import WITHOUT, WITHOUT_SHARED_NOISE


@dataclass(frozen=True, slots=True)
class Ablation:
    """A strategy's text and the part it lacks. Noise is only drawn at a temperature: `sampled` ones run at 1."""

    strategy: str
    lacks: str
    sampled: bool = False


WHOLE = "cosine"
ABLATIONS = (
    Ablation(WHOLE, "nothing"),
    Ablation(WITHOUT["fusion"], "fusion: each drafter goes its own way, their paths are merged afterwards"),
    Ablation(WITHOUT["cooperation"], "cooperation: one routed drafter for a request"),
    Ablation(WITHOUT["routing"], "routing: every drafter works on every request"),
    Ablation(WITHOUT["chosen batches"], "batch scheduling: all that wait are verified together"),
    Ablation(WITHOUT["adaptive length"], "adaptive speculation: depth, width and nodes stay what they are"),
    Ablation(WITHOUT["looking ahead"], "pipelining: nobody drafts while the request is verified"),
    Ablation(WITHOUT["calibration"], "calibration: confidences are compared as drafters state them"),
    Ablation(WHOLE, "nothing, at temperature 1", sampled=True),
    Ablation(WITHOUT_SHARED_NOISE, "shared noise: drafters guess greedily, at temperature 1", sampled=True),
)


def loads_of(ablation: Ablation, names: tuple[str, ...]) -> tuple[str, ...]:
    """The loads of an ablation, where the others run under `names`."""
    plain = (name.removesuffix(SAMPLED) for name in names)
    return tuple(dict.fromkeys(name + SAMPLED for name in plain)) if ablation.sampled else names


def legend() -> list[str]:
    """What each of them lacks, a line each."""
    return [f"{ablation.strategy}: without {ablation.lacks}" for ablation in ABLATIONS if ablation.strategy != WHOLE]
