"""Clusters: the same vector everywhere, kinds of prompts told apart whatever they share, and sums that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.clusters import (
    DIMENSION,
    JOIN_MIN,
    NAMES_MAX,
    SAME_MIN,
    TOKENS_MAX,
    Cluster,
    closest_pair,
    embed,
    likeness,
    nearest,
)

TOKENS = st.lists(st.integers(0, 200_000), max_size=50)
TEMPLATE = tuple(range(40))


def of_kind(kind: int, number: int, length: int = 40) -> tuple[int, ...]:
    """A prompt: a template that all share, then tokens of its kind, every third of which is its own choice."""
    first = 1000 * (kind + 1)
    own = ((first + (at if at % 3 else at * (number + 2) % 97)) for at in range(length))
    return (*TEMPLATE, *own)


def cluster_of(kind: int, numbers: range) -> Cluster:
    cluster = Cluster()
    for number in numbers:
        cluster.add(Cluster(embed(of_kind(kind, number)), 1.0))
    return cluster


def test_a_vector_is_the_same_on_every_machine() -> None:
    vector = embed((5, 7, 7, 300, 131_071))
    places = {int(place): round(float(vector[place]), 6) for place in np.flatnonzero(vector)}
    assert places == {58: -0.632456, 148: 0.447214, 222: -0.447214, 498: 0.447214}


@given(TOKENS)
def test_a_vector_has_length_one_and_does_not_know_the_order(token_ids: list[int]) -> None:
    vector = embed(token_ids)
    assert vector.shape == (DIMENSION,)
    assert vector == pytest.approx(embed(sorted(token_ids)))
    assert float(np.linalg.norm(vector)) in (pytest.approx(1.0), 0.0)


def test_an_empty_prompt_has_a_vector_too() -> None:
    assert not embed(()).any()
    assert nearest([cluster_of(0, range(3))], embed(()), JOIN_MIN) is None


def test_of_a_long_prompt_the_end_counts() -> None:
    end = tuple(range(TOKENS_MAX))
    assert (embed((7,) * 9000 + end) == embed(end)).all()


def test_a_prompt_is_nearest_to_its_kind_although_all_share_a_template() -> None:
    clusters = [cluster_of(kind, range(10)) for kind in range(4)]
    for kind in range(4):
        for number in range(10, 20):
            assert nearest(clusters, embed(of_kind(kind, number)), JOIN_MIN) == kind
    strange = likeness(clusters, embed(of_kind(9, 0)))
    assert nearest(clusters, embed(of_kind(9, 0)), JOIN_MIN) is None, strange


def test_a_prompt_belongs_to_the_only_cluster_if_it_is_of_that_kind() -> None:
    alone = [cluster_of(0, range(50))]
    assert nearest(alone, embed(of_kind(0, 60)), JOIN_MIN) == 0
    assert nearest(alone, embed(of_kind(1, 60)), JOIN_MIN) is None


def test_two_clusters_of_one_kind_are_found_and_those_of_different_kinds_are_not() -> None:
    kinds = [cluster_of(kind, range(5)) for kind in range(4)]
    assert closest_pair(kinds) is None
    assert closest_pair([*kinds, cluster_of(2, range(5, 8))]) == (2, 4)
    assert closest_pair(kinds[:1]) is closest_pair([]) is None
    assert SAME_MIN > JOIN_MIN


def test_of_too_many_tallies_the_one_with_the_least_evidence_goes() -> None:
    cluster = Cluster()
    for number in range(NAMES_MAX + 10):
        cluster.note(f"d{number:03}", 1.0, 100.0 - number)
    assert sorted(cluster.tallies) == [f"d{number:03}" for number in range(NAMES_MAX)]


@given(st.lists(st.tuples(TOKENS, st.sampled_from("ab"), st.floats(0, 10), st.floats(0, 10)), max_size=8))
def test_clusters_add_up_in_any_order_and_fade_as_one(seen: list[tuple[list[int], str, float, float]]) -> None:
    one, other = Cluster(), Cluster()
    parts = [Cluster(embed(token_ids), 1.0) for token_ids, *_ in seen]
    for part, (_, name, hits, tries) in zip(parts, seen, strict=True):
        part.note(name, hits, tries)
    for part in parts:
        one.add(part.faded(0.5))
    for part in reversed(parts):
        other.add(part)
    other = other.faded(0.5)
    assert one.total == pytest.approx(other.total)
    assert one.prompt_count == pytest.approx(other.prompt_count)
    assert {name: tally.tries for name, tally in one.tallies.items()} == pytest.approx(
        {name: tally.tries for name, tally in other.tallies.items()}
    )
