"""Kinds of prompts, from token ids alone: a prompt becomes a vector, prompts whose vectors point one way a cluster.

A vector is a hashed bag of tokens (feature hashing, arXiv 0902.2206). What all prompts share (spaces, commas, a chat
template) would make all of them alike, so most of a vector's part along the average of all prompts is taken off before
directions are compared. Clustering is online, by the nearest mean (leader clustering). A cluster is made of sums, so
that those of several schedulers can be added up. Bigrams as well did not tell kinds of 48 to 2,000 tokens better apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosine.core import noise

DIMENSION = 512
TOKENS_MAX = 2048  # of a prompt, counted from its end
JOIN_MIN = 0.16  # a prompt at least so alike a cluster's mean belongs to it
SAME_MIN = 0.5  # clusters whose means are at least so alike are one
COMMON_PART = 0.99  # of the products of two vectors' common parts is taken off; all, and one kind alone would have none
LENGTH_MIN = 1e-9
NAMES_MAX = 64  # tallies of one cluster
SALT = 0x70726F6D7074

Vector = NDArray[np.float64]


@dataclass(slots=True)
class Tally:
    """Hits out of tries, faded: both are as real as the evidence is old."""

    hits: float = 0.0
    tries: float = 0.0

    def rate(self, expected: float, weight: float) -> float:
        """Hits per try, shrunk towards what is expected as if that had been seen `weight` times."""
        return (self.hits + weight * expected) / (self.tries + weight)


@dataclass(slots=True, eq=False)
class Cluster:
    """One kind of prompts: how many came, the sum of their vectors `[DIMENSION]`, and a tally per name."""

    total: Vector = field(default_factory=lambda: np.zeros(DIMENSION))
    prompt_count: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def mean(self) -> Vector:
        """The mean of its prompts' vectors; zeros where it has had none."""
        return self.total / self.prompt_count if self.prompt_count else self.total

    def note(self, name: str, hits: float, tries: float) -> None:
        """Adds to one tally. Past `NAMES_MAX` names the one with the least evidence makes room."""
        tally = self.tallies.setdefault(name, Tally())
        tally.hits += hits
        tally.tries += tries
        if len(self.tallies) > NAMES_MAX:
            del self.tallies[min(self.tallies, key=lambda other: (self.tallies[other].tries, other))]

    def add(self, other: Cluster) -> None:
        """Adds all that another cluster has seen."""
        self.total = self.total + other.total
        self.prompt_count += other.prompt_count
        for name, tally in other.tallies.items():
            self.note(name, tally.hits, tally.tries)

    def faded(self, factor: float) -> Cluster:
        """A copy in which everything counts `factor` times as much."""
        tallies = {name: Tally(tally.hits * factor, tally.tries * factor) for name, tally in self.tallies.items()}
        return Cluster(self.total * factor, self.prompt_count * factor, tallies)


def embed(token_ids: Sequence[int]) -> Vector:
    """The vector of a prompt, `[DIMENSION]`: of length 1, or zeros for an empty one. The same on every machine.

    Every token adds the root of its count to one place, with a sign; both come from its mixed bits.
    """
    vector = np.zeros(DIMENSION)
    found, counts = np.unique(np.array(token_ids[-TOKENS_MAX:], dtype=np.int64), return_counts=True)
    mixed = noise.bits(SALT, 0, found.astype(np.uint64))
    signs = np.where(mixed & np.uint64(1), 1.0, -1.0)
    np.add.at(vector, (mixed >> np.uint64(1)) % np.uint64(DIMENSION), signs * np.sqrt(counts))
    return _unit(vector)


def likeness(clusters: Sequence[Cluster], mean: Vector) -> Vector:
    """How alike each cluster's mean is to a mean or to one prompt's vector, -1 to 1, `[clusters]`."""
    totals = _totals(clusters)
    found: Vector = _cosines(totals, mean[None], _unit(totals.sum(axis=0)))[:, 0]
    return found


def nearest(clusters: Sequence[Cluster], mean: Vector, least: float) -> int | None:
    """The index of the cluster most alike a mean or one prompt's vector; None where none is at least so alike."""
    if not clusters:
        return None
    found = likeness(clusters, mean)
    best = int(np.argmax(found))
    return best if found[best] >= least else None


def closest_pair(clusters: Sequence[Cluster]) -> tuple[int, int] | None:
    """The two clusters most alike, the lower index first; None where no two are one kind."""
    if len(clusters) < 2:
        return None
    totals = _totals(clusters)
    found = np.triu(_cosines(totals, totals, _unit(totals.sum(axis=0))), 1)
    first, second = divmod(int(np.argmax(found)), len(clusters))
    return (first, second) if found[first, second] >= SAME_MIN else None


def _totals(clusters: Sequence[Cluster]) -> Vector:
    return np.array([cluster.total for cluster in clusters])


def _cosines(left: Vector, right: Vector, common: Vector) -> Vector:
    """Cosines of all pairs, `[left, right]`, once most of what each has of the common direction is taken off."""
    left_part, right_part = left @ common, right @ common
    products = left @ right.T - COMMON_PART * np.outer(left_part, right_part)
    lengths = np.sqrt(np.outer(_rest(left, left_part), _rest(right, right_part)))
    cosines: Vector = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > LENGTH_MIN)
    return cosines


def _rest(vectors: Vector, parts: Vector) -> Vector:
    """Squared lengths of what is left of vectors."""
    squares: Vector = np.einsum("ij,ij->i", vectors, vectors) - COMMON_PART * parts**2
    return np.maximum(squares, 0.0)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
