"""Token trees against what they mean: sets of paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import paths
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.errors import BadRequest
from cosine.core.tree import (
    ROOT,
    Grower,
    TokenTree,
    ancestor_mask,
    chain,
    children,
    depths,
    hang,
    merge,
    path_to,
    path_tokens,
    prune,
    select,
    validate,
    values,
)


@st.composite
def trees(draw: st.DrawFn, nodes_max: int = 10, vocab_size: int = 3) -> TokenTree:
    grower = Grower()
    for _ in range(draw(st.integers(0, nodes_max))):
        parent = draw(st.integers(ROOT, len(grower) - 1))
        token = draw(st.integers(0, vocab_size - 1))
        confidence = draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))
        grower.add(parent, token, confidence, 1 << draw(st.integers(0, 3)))
    return grower.tree()


def test_the_same_token_below_different_parents_is_two_nodes() -> None:
    left, right = chain([1, 9], [0.5, 0.5], 0), chain([2, 9], [0.5, 0.5], 1)
    merged = merge([left, right])
    assert sorted(paths(merged)) == [(1,), (1, 9), (2,), (2, 9)]
    nodes = paths(merged)
    assert (merged.proposers[nodes[1, 9]], merged.proposers[nodes[2, 9]]) == (1, 2)


def test_the_same_token_below_one_parent_is_one_node_of_all_its_proposers() -> None:
    merged = merge([chain([1, 9], [0.5, 0.2], 0), chain([1, 9], [0.3, 0.6], 2)])
    assert merged == TokenTree((1, 9), (ROOT, 0), (0.5, 0.6), (0b101, 0b101))


@given(st.lists(trees(), max_size=4))
def test_merging_joins_paths_keeps_the_highest_confidence_and_all_proposers(given_trees: list[TokenTree]) -> None:
    expected: dict[tuple[int, ...], tuple[float, int]] = {}
    for tree in given_trees:
        for path, node in paths(tree).items():
            confidence, proposers = expected.get(path, (0.0, 0))
            expected[path] = max(confidence, tree.confidences[node]), proposers | tree.proposers[node]
    merged = merge(given_trees)
    found = {path: (merged.confidences[node], merged.proposers[node]) for path, node in paths(merged).items()}
    assert found == expected
    validate(merged, 3)


@given(trees())
def test_values_are_products_along_the_path_and_depths_its_length(tree: TokenTree) -> None:
    for node in range(len(tree)):
        path = path_to(tree, node)
        product = float(np.prod([tree.confidences[step] for step in path]))
        assert values(tree)[node] == pytest.approx(product)
        assert depths(tree)[node] == len(path) == len(path_tokens(tree, node))


@given(trees())
def test_a_node_sees_the_root_itself_and_its_ancestors_and_nothing_else(tree: TokenTree) -> None:
    mask = ancestor_mask(tree)
    assert mask.shape == (len(tree) + 1, len(tree) + 1)
    for node in range(ROOT, len(tree)):
        seen = {0} | {step + 1 for step in path_to(tree, node)}
        assert set(np.flatnonzero(mask[node + 1])) == seen


@given(trees())
def test_children_are_found_by_parent_and_token(tree: TokenTree) -> None:
    found = {(parent, token): node for parent, kids in children(tree).items() for token, node in kids.items()}
    expected = {(tree.parents[node], tree.token_ids[node]): node for node in range(len(tree))}
    assert found == expected


@given(trees(nodes_max=8), st.integers(0, 9))
def test_pruning_keeps_the_highest_values_closed_under_parents(tree: TokenTree, budget: int) -> None:
    kept = prune(tree, budget)
    size = min(budget, len(tree))
    best = max(sum(values(tree)[node] for node in subset) for subset in itertools.combinations(range(len(tree)), size))
    assert len(kept) == size
    assert sum(values(kept)) == pytest.approx(best)
    assert paths(kept).keys() <= paths(tree).keys()
    for path, node in paths(kept).items():
        assert kept.confidences[node] == tree.confidences[paths(tree)[path]]


@given(trees(), st.data())
def test_hanging_a_part_below_another_root_keeps_what_its_nodes_say(tree: TokenTree, data: st.DataObject) -> None:
    way = data.draw(st.sampled_from([(), *paths(tree)]))
    below = {path[len(way) :]: node for path, node in paths(tree).items() if path[: len(way)] == way and path != way}
    rest = hang(tree, paths(tree).get(way, ROOT), sorted(below.values()))
    assert paths(rest).keys() == below.keys()
    for path, node in paths(rest).items():
        assert (rest.confidences[node], rest.proposers[node]) == (
            tree.confidences[below[path]],
            tree.proposers[below[path]],
        )


def test_hanging_works_without_confidences() -> None:
    assert hang(TokenTree((1, 2, 3), (ROOT, 0, 0)), 0, [1, 2]) == TokenTree((2, 3), (ROOT, ROOT))


@given(trees())
def test_selecting_every_node_changes_nothing(tree: TokenTree) -> None:
    assert select(tree, range(len(tree))) == tree


def test_a_chain_is_one_path() -> None:
    assert chain([4, 5], [0.5, 0.25], proposer=1) == TokenTree((4, 5), (ROOT, 0), (0.5, 0.25), (2, 2))


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (TokenTree((1,), ()), "TREE_MALFORMED"),
        (TokenTree((1, 2), (ROOT, 1)), "TREE_MALFORMED"),
        (TokenTree((1,), (-2,)), "TREE_MALFORMED"),
        (TokenTree((1, 2), (1, ROOT)), "TREE_MALFORMED"),
        (TokenTree((1,), (ROOT,), (0.5, 0.5)), "TREE_MALFORMED"),
        (TokenTree((1,), (ROOT,), (), (1, 2)), "TREE_MALFORMED"),
        (TokenTree((3,), (ROOT,)), "TOKEN_OUT_OF_RANGE"),
        (TokenTree((-1,), (ROOT,)), "TOKEN_OUT_OF_RANGE"),
    ],
)
def test_a_tree_that_is_none_is_refused(tree: TokenTree, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(tree, 3)
    assert caught.value.reason == reason


@given(trees())
def test_every_grown_tree_is_valid(tree: TokenTree) -> None:
    validate(tree, 3)
