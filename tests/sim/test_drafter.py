"""A simulated drafter is a real one whose model is the recording: same trees, same forward passes, same cache."""

from dataclasses import replace

import pytest

from cosine.core.plan import DraftItem
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, TokenTree
from cosine.engine.drafting import DraftResult, draft
from cosine.engine.verifying import Status
from cosine.sim.drafter import Drafter
from cosine.sim.recording import Variant
from tests.sim.parks import DRAFTER, library
from tests.sim.recorded_engine import RecordedEngine

SHAPES = [(1, 1, 1), (4, 1, 1), (8, 2, 1), (8, 3, 2), (5, 4, 4), (3, 2, 6)]


class Pair:
    """The same drafter twice: simulated, and through the engine."""

    def __init__(self, specialist: int = 1) -> None:
        self.simulated = Drafter(library(), specialist, DRAFTER)
        self.engine = RecordedEngine(library(), specialist)

    def ask(self, *items: DraftItem) -> list[TokenTree]:
        """Both answer; their trees, once all is compared."""
        self.engine.passes.clear()
        results = draft(self.engine, items)
        run = self.simulated.compute(items)
        for result, guess in zip(results, run.results, strict=True):
            assert (guess.session_id, guess.missed) == (result.session_id, result.status is Status.CACHE_MISS)
            _assert_same_tree(result, guess.tree)
        took_ms = sum(DRAFTER.forward_ms(rows, cached) for rows, cached in self.engine.passes)
        assert run.seconds * 1000 == pytest.approx(took_ms)
        return [guess.tree or EMPTY for guess in run.results]


def _assert_same_tree(result: DraftResult, tree: TokenTree | None) -> None:
    assert (tree is None) == (result.status is not Status.OK)
    if tree is not None:
        assert (tree.token_ids, tree.parents) == (result.tree.token_ids, result.tree.parents)
        assert tree.confidences == pytest.approx(result.tree.confidences)


def step(number: int, behind: int, shape: tuple[int, int, int] = (4, 2, 2), base: int = 0, **more: object) -> DraftItem:
    """A step for a text, so many tokens behind its prompt."""
    script = library().scripts[number]
    depth, width, beam = shape
    context = script.token_ids[base : script.prompt_length + behind]
    plain = DraftItem(f"s{number}", base, context, depth, width, beam)
    return replace(plain, **more)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_grows_the_tree_of_the_engine_in_as_many_rows(shape: tuple[int, int, int]) -> None:
    pair = Pair()
    for behind in (1, 4, 9, 60):
        pair.ask(step(0, behind, shape), step(13, behind, shape), step(40, behind + 1, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_was_right_about_is_in_its_cache(shape: tuple[int, int, int]) -> None:
    pair = Pair()
    prompt = library().scripts[25].prompt_length
    pair.ask(step(25, 1, shape))
    for behind in range(2, 40, 3):
        pair.ask(step(25, behind, shape, base=prompt + behind - 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_goes_on_growing_a_tree_that_was_begun(shape: tuple[int, int, int]) -> None:
    pair = Pair()
    for behind in (1, 5, 17):
        (begun,) = pair.ask(step(7, behind, (3, 2, 2)))
        tree = TokenTree(begun.token_ids, begun.parents, begun.confidences)
        (grown,) = pair.ask(step(7, behind, shape, tree=tree))
        assert grown.token_ids[: len(tree)] == tree.token_ids
        assert len(grown) > len(tree)


def test_it_stops_where_values_fall_below_the_least() -> None:
    pair = Pair(0)
    sizes = [len(pair.ask(step(40, 9, (8, 2, 2), value_min=least))[0]) for least in (0.0, 0.3, 1.1)]
    assert sizes[0] > sizes[1] > sizes[2] == 2


def test_it_grows_nothing_where_no_end_of_a_begun_tree_is_worth_it() -> None:
    tree = TokenTree((1, 2), (-1, 0), (0.1, 0.1))
    (grown,) = Pair().ask(step(3, 5, (8, 2, 2), value_min=0.5, tree=tree))
    assert grown.token_ids == tree.token_ids


def test_it_misses_what_it_was_never_sent() -> None:
    pair = Pair()
    assert pair.ask(step(3, 5, base=10)) == [EMPTY]
    pair.ask(step(3, 5))
    pair.simulated.close(["s3"])
    pair.engine.close(["s3"])
    assert pair.ask(step(3, 6, base=10)) == [EMPTY]


def test_off_the_text_it_goes_on_with_guesses_and_every_drafter_at_the_same_place() -> None:
    script = library().scripts[3]
    wrong = (*script.token_ids[: script.prompt_length + 4], (script.token_ids[script.prompt_length + 4] + 1) % 2048)
    trees = [Pair(drafter).ask(replace(step(3, 0), token_ids=wrong))[0] for drafter in (0, 0, 4)]
    assert len(trees[0]) == len(trees[2]) > 4
    assert trees[0] == trees[1] != trees[2]


def test_greedy_drafts_of_sampled_texts_are_others_than_shared_ones() -> None:
    texts = library(Variant.SHARED)
    drafter = Drafter(texts, 0, DRAFTER)
    script = texts.scripts[3]
    item = DraftItem("s", 0, script.token_ids[: script.prompt_length + 1], 1, 4, 1, Sampling(temperature=1.0))
    row = script.first_row + 1
    recorded = [texts.children(0, greedily, script, script.prompt_length + 1, 0) for greedily in (False, True)]
    assert recorded[0] != recorded[1]
    assert row in script.rows
    for sampling, best in zip((item.sampling, GREEDY), recorded, strict=True):
        tree = drafter.compute([replace(item, sampling=sampling)]).results[0].tree
        assert tree is not None
        assert list(zip(tree.token_ids, tree.confidences, strict=True)) == best
