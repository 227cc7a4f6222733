"""What a drafter's confidence is worth: confidence bin -> how often the target agreed, learned from verdicts.

Raw confidences of different models cannot be compared: an over-confident stranger would take over the backbone. Each
drafter's confidence is replaced by the observed acceptance of its bin, shrunk towards the raw value while little is
known, and corrected per session by how this drafter does in this text. Old observations fade.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

BIN_EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
PRIOR_WEIGHT = 6.0
SESSION_PRIOR_WEIGHT = 3.0
MEMORY = 400.0
SESSION_MEMORY = 30.0
CONSENT_SHARE = 0.5  # the test bed's path values come out as predicted (0.34 as 0.33, 0.47 as 0.49); with 1 a fifth low


@dataclass(slots=True)
class Bin:
    """Weighted counts of confidences of about one size."""

    tried: float = 0.0
    hit: float = 0.0

    def note(self, hit: bool, memory: float) -> None:
        """Adds one observation; past `memory` observations the older half fades."""
        self.tried += 1.0
        self.hit += hit
        if self.tried > memory:
            self.tried /= 2
            self.hit /= 2


@dataclass(slots=True)
class Record:
    """Hits against expectations of one drafter in one session."""

    expected: float = 0.0
    hit: float = 0.0

    @property
    def factor(self) -> float:
        """Hits per expected hit, 1 while nothing is known."""
        return (self.hit + SESSION_PRIOR_WEIGHT) / (self.expected + SESSION_PRIOR_WEIGHT)

    def note(self, expected: float, hit: bool, memory: float = SESSION_MEMORY) -> None:
        """Adds one observation; past `memory` expected hits the older half fades."""
        self.expected += expected
        self.hit += hit
        if self.expected > memory:
            self.expected /= 2
            self.hit /= 2


class Consent:
    """How much more often, or less, than their surest proposer expects tokens come that so many of a crew propose: who
    does not propose a token says something of it too, and the surest of several errs upwards."""

    def __init__(self) -> None:
        self._records: dict[tuple[int, int], Record] = {}

    def note(self, proposer_count: int, crew: int, expected: float, hit: bool) -> None:
        """So many of a crew have proposed a token, which came or did not."""
        self._records.setdefault((crew, proposer_count), Record()).note(expected, hit, MEMORY)

    def factors(self, crew: int) -> list[float]:
        """What a confidence is to be multiplied with, by how many propose: none (those who did take no part any more)
        up to all. Of hits per expected hit it is the part that sessions' own records do not learn as well."""
        seen = [self._records.get((crew, count), UNKNOWN).factor for count in range(crew + 1)]
        return [seen[0], *(factor**CONSENT_SHARE for factor in seen[1:])]


UNKNOWN = Record()


def bin_of(confidence: float) -> int:
    """Index of the bin a confidence falls into."""
    return bisect_right(BIN_EDGES, confidence)


@dataclass(slots=True)
class Calibration:
    """The worth of one drafter's confidences."""

    bins: list[Bin] = field(default_factory=lambda: [Bin() for _ in range(len(BIN_EDGES) + 1)])

    def estimator(self, factor: float = 1.0) -> Callable[[float], float]:
        """What says how likely a token comes that was proposed with a confidence, times `factor`, never above 1. It
        goes by what is known now: the confidence itself, until hits and misses of its bin say otherwise."""
        weights = [1.0 / (bin.tried + PRIOR_WEIGHT) for bin in self.bins]
        known = [factor * bin.hit * weight for bin, weight in zip(self.bins, weights, strict=True)]
        steep = [factor * PRIOR_WEIGHT * weight for weight in weights]

        def estimate(confidence: float) -> float:
            place = bisect_right(BIN_EDGES, confidence)
            found = known[place] + steep[place] * confidence
            return found if found < 1.0 else 1.0

        return estimate

    def note(self, confidence: float, hit: bool) -> None:
        """The target agreed, or did not, with a token proposed with this confidence."""
        self.bins[bin_of(confidence)].note(hit, MEMORY)
