"""Growing trees: a begun tree against a slow best-first growth, an empty one against a slow growth level by level."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import CONFIGS, VOCAB_SIZE, build, save

from cosine.core.picking import RowRule
from cosine.core.plan import DraftItem
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.strategy import BOUNDS
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, chain, depths, path_tokens, values
from cosine.engine.base import Engine, EngineLimits, Segment
from cosine.engine.drafting import NODES_MAX, STEPS_MAX, DraftResult, draft
from cosine.engine.toy import ToyEngine
from cosine.engine.transformers_engine import load
from cosine.engine.verifying import Status

LIMITS = EngineLimits(sessions_max=8, tokens_max=120)
SAMPLINGS = (GREEDY, Sampling(temperature=1.0, seed=5), Sampling(temperature=0.7, seed=9, top_k=20))

Make = Callable[[], Engine]


def toy() -> Engine:
    return ToyEngine("toy:seed=1,own=3,skill=0.6", "fingerprint", LIMITS)


@pytest.fixture(scope="module", params=["toy", "llama-grouped", "mistral-window"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    name: str = request.param
    if name == "toy":
        return toy
    assert name in CONFIGS
    folder: Path = save(build(name), tmp_path_factory.mktemp(name))
    return lambda: load(str(folder), dtype="float32", limits=LIMITS)


def begun_tree(dice: random.Random, count: int) -> TokenTree:
    """`count` nodes hung anywhere, of any confidence."""
    grower = Grower()
    while len(grower) < count:
        parent = dice.randint(ROOT, len(grower) - 1)
        grower.add(parent, dice.randrange(VOCAB_SIZE), dice.uniform(0.1, 1.0), 1 << dice.randrange(4))
    return grower.tree()


def context(item: DraftItem, held: list[int]) -> list[int]:
    return [*held[: item.base_length], *item.token_ids]


def expand_slowly(
    engine: Engine, tokens: list[int], tree: TokenTree, frontier: list[int], item: DraftItem
) -> TokenTree:
    """The tree with the children of the frontier's nodes, each found by a forward pass over its whole path."""
    grown = [list(column) for column in (tree.token_ids, tree.parents, tree.confidences, tree.proposers)]
    for node in frontier:
        path = path_tokens(tree, node)
        logits = engine.forward([Segment("slow", 0, (*tokens, *path))])
        ((token_ids, confidences),) = logits.children(
            [0], [RowRule(item.sampling, len(tokens) + len(path))], item.width
        )
        for token, confidence in zip(token_ids, confidences, strict=True):
            if confidence < item.sibling_min and confidence != max(confidences):
                continue
            for column, value in zip(grown, (token, node, confidence, 1), strict=True):
                column.append(value)
    return TokenTree(*(tuple(column) for column in grown))  # type: ignore[arg-type]  # a star has one type for all columns


def grow_slowly(engine: Engine, tokens: list[int], item: DraftItem) -> TokenTree:
    """What the item asks for, node by node: the whole tree looked through at every step."""
    tree, fresh = item.tree, [ROOT]
    for _ in range(item.step_count):
        if item.tree:
            fresh = [node for node in range(len(tree)) if node not in tree.parents]
        value = values(tree)
        alive = [node for node in fresh if node == ROOT or value[node] >= item.value_min]
        frontier = sorted(alive, key=lambda node: (0.0 if node == ROOT else -value[node], node))[: item.beam]
        before = len(tree)
        tree = expand_slowly(engine, tokens, tree, frontier, item)
        fresh = list(range(before, len(tree)))
    return tree


def expect_same(result: DraftResult, expected: TokenTree) -> None:
    assert result.status is Status.OK
    assert (result.tree.token_ids, result.tree.parents) == (expected.token_ids, expected.parents)
    assert result.tree.proposers == expected.proposers
    assert result.tree.confidences == pytest.approx(expected.confidences, rel=1e-3, abs=1e-6)


def random_item(dice: random.Random, session: str, begun: bool) -> DraftItem:
    return DraftItem(
        session,
        0,
        tuple(dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 12))),
        step_count=dice.randint(1, 5),
        width=dice.randint(1, 4),
        beam=dice.randint(1, 4),
        sampling=dice.choice(SAMPLINGS),
        value_min=dice.choice((0.0, 0.0, 0.02)),
        tree=begun_tree(dice, dice.randint(1, 9)) if begun else EMPTY,
        sibling_min=dice.choice((0.0, 0.0, 0.02, 0.2)),
    )


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "empty"])
def test_growth_equals_the_slow_one_node_for_node_in_every_batch(make: Make, begun: bool) -> None:
    dice = random.Random(3)
    engine, slow = make(), make()
    for _ in range(8):
        items = [random_item(dice, session, begun) for session in "abc"]
        for result, item in zip(draft(engine, items), items, strict=True):
            expect_same(result, grow_slowly(slow, context(item, []), item))


def test_begun_and_empty_trees_grow_in_one_batch(make: Make) -> None:
    dice = random.Random(5)
    engine, slow = make(), make()
    items = [random_item(dice, session, session in "ac") for session in "abcd"]
    for result, item in zip(draft(engine, items), items, strict=True):
        expect_same(result, grow_slowly(slow, context(item, []), item))


def test_growing_in_slices_equals_growing_at_once(make: Make) -> None:
    engine = make()
    begun = chain([4, 9], [0.9, 0.4])
    whole = draft(engine, [DraftItem("whole", 0, (1, 2, 3), 4, 3, 2, SAMPLINGS[1], tree=begun)])[0].tree
    tree = begun
    for base in (0, 2, 2, 2):
        (result,) = draft(engine, [DraftItem("sliced", base, (1, 2, 3)[base:], 1, 3, 2, SAMPLINGS[1], tree=tree)])
        tree = result.tree
    assert (tree.token_ids, tree.parents) == (whole.token_ids, whole.parents)


def test_a_session_that_grew_a_tree_goes_on_from_any_committed_path(make: Make) -> None:
    dice = random.Random(8)
    engine, slow = make(), make()
    held: list[int] = []
    base = 0
    for _ in range(6):
        item = DraftItem(
            "a",
            base,
            tuple(dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 3))),
            step_count=3,
            width=2,
            beam=2,
            sampling=SAMPLINGS[1],
            tree=begun_tree(dice, dice.randint(0, 5)),
        )
        (result,) = draft(engine, [item])
        held = context(item, held)
        expect_same(result, grow_slowly(slow, held, item))
        assert result.cached_length == len(held)
        assert list(engine.tokens("a"))[: len(held)] == held
        base = len(held)
        if dice.random() < 0.5:  # the drafter was right about a path of its own
            held = [*held, *path_tokens(result.tree, dice.randrange(len(result.tree)))]
            (result,) = draft(engine, [DraftItem("a", base, (*held[base:], 5))])
            held = [*held, 5]
            base = len(held)


def test_a_begun_tree_whose_nodes_are_worth_too_little_stays_and_its_context_is_cached(make: Make) -> None:
    engine = make()
    draft(engine, [DraftItem("a", 0, (1, 2, 3), step_count=4)])
    begun = chain([4, 9], [0.5, 0.2])
    (result,) = draft(engine, [DraftItem("a", 2, (7, 8), 3, tree=begun, value_min=0.2)])
    assert result.tree == begun
    assert result.cached_length == 4
    assert list(engine.tokens("a")) == [1, 2, 7, 8]


def test_tokens_twice_below_one_parent_are_joined() -> None:
    begun = TokenTree((4, 4, 9), (ROOT, ROOT, 1), (0.2, 0.6, 0.5), (1, 2, 4))
    (result,) = draft(toy(), [DraftItem("a", 0, (1,), 1, tree=begun)])
    assert result.tree.token_ids[:2] == (4, 9)
    assert result.tree.parents[:3] == (ROOT, 0, 1)
    assert result.tree.confidences[:2] == (0.6, 0.5)
    assert result.tree.proposers[:2] == (3, 4)


def test_a_tree_without_confidences_counts_as_certain() -> None:
    (result,) = draft(toy(), [DraftItem("a", 0, (1,), 1, tree=TokenTree((4, 9), (ROOT, 0)))])
    assert result.tree.confidences[:2] == (1.0, 1.0)
    assert result.tree.parents == (ROOT, 0, 1)


def test_a_malformed_tree_is_refused_and_does_not_disturb_the_others() -> None:
    bad = DraftItem("a", 0, (1,), tree=TokenTree((4,), (3,)))
    refused, fine = draft(toy(), [bad, DraftItem("b", 0, (1,))])
    assert refused.status is Status.REFUSED
    assert len(fine.tree) == 1


@pytest.mark.parametrize(
    "bad",
    [
        DraftItem("a", 0, (1,), sampling=Sampling(temperature=1.0, logit_bias=((99_999, 1.0),))),
        DraftItem("a", 0, (1,), step_count=STEPS_MAX + 1),
        DraftItem("a", 0, (1,), step_count=STEPS_MAX, width=NODES_MAX // STEPS_MAX // 4, beam=5),
    ],
    ids=["bias", "steps", "nodes"],
)
def test_an_item_that_asks_for_too_much_is_refused_and_does_not_disturb_the_others(bad: DraftItem) -> None:
    refused, fine = draft(toy(), [bad, DraftItem("b", 0, (1,))])
    assert refused.status is Status.REFUSED
    assert (fine.status, len(fine.tree)) == (Status.OK, 1)


def test_what_the_most_generous_strategy_asks_for_is_not_too_much() -> None:
    depth, width, beam = (BOUNDS[name][1] for name in ("depth", "width", "beam"))
    asked = DraftItem("a", 0, (1,), int(depth), int(width), 2 * int(beam), value_min=1.0)
    (result,) = draft(toy(), [asked])
    assert result.status is Status.OK


@pytest.mark.parametrize("begun", [EMPTY, chain([3, 4, 5], [0.9, 0.9, 0.9])], ids=["empty", "begun"])
def test_no_tree_grows_past_the_end_of_its_session(make: Make, begun: TokenTree) -> None:
    engine = make()
    room = 6
    tokens = tuple(range(90)) + (1,) * (LIMITS.tokens_max - room - 90)
    (result,) = draft(engine, [DraftItem("a", 0, tokens, 30, 2, 2, tree=begun)])
    assert max(depths(result.tree)) <= room
    assert len(result.tree) > len(begun)


def test_a_begun_tree_deeper_than_the_session_has_room_for_is_left_as_it_is(make: Make) -> None:
    engine = make()
    begun = chain([3, 4, 5, 6], [0.9] * 4)
    (result,) = draft(engine, [DraftItem("a", 0, (1,) * (LIMITS.tokens_max - 4), 3, tree=begun)])
    assert result.tree == begun
    (beside,) = draft(engine, [DraftItem("b", 0, (1,) * (LIMITS.tokens_max - 4), 3, width=2, tree=with_leaf(begun))])
    assert beside.tree.parents[:5] == (*begun.parents, ROOT)
    assert beside.tree.parents[5:7] == (4, 4)


def with_leaf(tree: TokenTree) -> TokenTree:
    """One more child of the root, worth little."""
    return TokenTree((*tree.token_ids, 80), (*tree.parents, ROOT), (*tree.confidences, 0.01), (*tree.proposers, 1))
