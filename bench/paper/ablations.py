"""What each part of cosine brings: cosine again, without that part, on the same hardware."""

from __future__ import annotations

from dataclasses import dataclass

from bench.paper.loads import SAMPLED


@dataclass(frozen=True, slots=True)
class Ablation:
    """A strategy's text and the part it lacks. Noise is only drawn at a temperature: `sampled` ones run at 1."""

    strategy: str
    lacks: str
    sampled: bool = False


WHOLE = "cosine"
ABLATIONS = (
    Ablation(WHOLE, "nothing"),
    Ablation("cosine:cooperation=merged", "fusion: each drafter goes its own way, their paths are merged afterwards"),
    Ablation(
        "cosine:cooperation=single,drafter_count=1,first_count=1", "cooperation: one routed drafter for a request"
    ),
    Ablation("cosine:choice=all,drafter_count=5,first_count=5", "routing: every drafter works on every request"),
    Ablation("cosine:batching=continuous", "batch scheduling: all that wait are verified together"),
    Ablation("cosine:length=fixed", "adaptive speculation: depth, width and nodes stay what they are"),
    Ablation("cosine:lookahead=0,groups=1", "pipelining: nobody drafts while the request is verified"),
    Ablation("cosine:calibrated=no", "calibration: confidences are compared as drafters state them"),
    Ablation(WHOLE, "nothing, at temperature 1", sampled=True),
    Ablation("cosine:shared_noise=no", "shared noise: drafters guess greedily, at temperature 1", sampled=True),
)


def loads_of(ablation: Ablation, names: tuple[str, ...]) -> tuple[str, ...]:
    """The loads of an ablation, where the others run under `names`."""
    plain = (name.removesuffix(SAMPLED) for name in names)
    return tuple(dict.fromkeys(name + SAMPLED for name in plain)) if ablation.sampled else names


def legend() -> list[str]:
    """What each of them lacks, a line each."""
    return [f"{ablation.strategy}: without {ablation.lacks}" for ablation in ABLATIONS if ablation.strategy != WHOLE]
