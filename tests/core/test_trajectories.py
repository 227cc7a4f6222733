"""Speculative decoding says what plain decoding says, token for token, whatever trees it is given."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from harness import plain_text, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.acceptance import walk
from cosine.core.plan import DraftItem
from cosine.core.sampling import Sampling
from cosine.core.tree import EMPTY, ROOT, Grower, TokenTree, merge
from cosine.engine.drafting import draft
from cosine.engine.toy import VOCAB_SIZE
from cosine.engine.verifying import Status, Verdict, VerifyItem, verify

COUNT = 12
Drafting = Callable[[list[int]], TokenTree]

SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    seed=st.integers(0, 2**64 - 1),
    top_k=st.sampled_from([0, 1, 3, 40]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    logit_bias=st.sampled_from([(), ((3, 4.0), (7, -100.0))]),
)


def speculative_text(
    prompt: list[int], sampling: Sampling, target: str, drafting: Drafting, logprobs: list[Any] | None = None
) -> tuple[list[int], int]:
    """The text by rounds of drafting and verification, and how many rounds it took."""
    engine, tokens, cached, rounds = toy(target), list(prompt), 0, 0
    while len(tokens) < len(prompt) + COUNT:
        rounds += 1
        item = VerifyItem("s", cached, tuple(tokens[cached:]), drafting(tokens), sampling, len(prompt))
        (verdict,) = verify(engine, [item])
        assert verdict.status is Status.OK
        tokens += verdict.token_ids
        cached = verdict.cached_length
        assert list(engine.tokens("s")) == tokens[:-1], "the cache holds all but the last pick"
        if logprobs is not None:
            logprobs += verdict.logprobs
    return tokens[len(prompt) :][:COUNT], rounds


def drafter(source: str, sampling: Sampling, width: int, beam: int) -> Drafting:
    """Trees of a toy drafter that has been told the whole text."""
    engine = toy(source)

    def trees(tokens: list[int]) -> TokenTree:
        (result,) = draft(engine, [DraftItem("s", 0, tuple(tokens), 4, width, beam, sampling)])
        return result.tree

    return trees


def wild(seed: int) -> Drafting:
    """Trees of any shape, of tokens that are mostly wrong."""
    dice = random.Random(seed)

    def trees(tokens: list[int]) -> TokenTree:
        grower = Grower()
        for _ in range(dice.randrange(12)):
            grower.add(dice.randint(ROOT, len(grower) - 1), dice.choice([0, 1, 3, 256, *tokens[-3:]]), 0.5, 2)
        return grower.tree()

    return trees


@settings(deadline=None, max_examples=40)
@given(
    SAMPLINGS,
    st.integers(1, 1000),
    st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_any_model_any_rules_and_any_trees_give_the_plain_text(
    sampling: Sampling, seed: int, prompt: list[int], skill: float, width: int, beam: int
) -> None:
    target = f"toy:seed={seed}"
    guess = drafter(f"toy:seed={seed},own=3,skill={skill}", sampling, width, beam)
    noise = wild(seed)
    text, _ = speculative_text(prompt, sampling, target, lambda tokens: merge([guess(tokens), noise(tokens)]))
    assert text == plain_text(prompt, COUNT, sampling, target=target)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_drafter_that_is_the_target_is_accepted_to_the_end_at_any_temperature(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=5)
    _, rounds = speculative_text([1, 2], sampling, "toy:seed=1", drafter("toy:seed=1", sampling, 1, 1))
    assert rounds == -(-COUNT // 5)


def test_shared_noise_is_what_makes_a_drafter_agree_at_temperature_one() -> None:
    sampling, other = Sampling(temperature=1.0, seed=5), Sampling(temperature=1.0, seed=6)
    source = "toy:seed=1,own=3,skill=0.9"
    _, shared = speculative_text([1, 2], sampling, "toy:seed=1", drafter(source, sampling, 1, 1))
    _, apart = speculative_text([1, 2], sampling, "toy:seed=1", drafter(source, other, 1, 1))
    assert shared < 0.7 * apart


def test_penalties_hold_within_one_accepted_run() -> None:
    sampling = Sampling(presence_penalty=100.0)
    text, _ = speculative_text([1], sampling, "toy:seed=1", drafter("toy:seed=1", Sampling(), 3, 2))
    assert len(set(text)) == COUNT


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_are_those_of_plain_decoding(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, seed=4, logprobs=3)
    plain: list[Any] = []
    speculative: list[Any] = []
    speculative_text([1, 2], sampling, "toy:seed=1", lambda _: EMPTY, plain)
    speculative_text([1, 2], sampling, "toy:seed=1", drafter("toy:seed=1", sampling, 2, 1), speculative)
    assert speculative[:COUNT] == plain[:COUNT]


def test_a_batch_says_of_each_session_what_it_would_alone_and_stays_whole_when_one_cannot_be_done() -> None:
    engine = toy("toy:seed=1")
    tree = drafter("toy:seed=1,own=3,skill=0.6", Sampling(), 2, 2)([4, 5])
    items = [
        VerifyItem("a", 0, (4, 5), tree),
        VerifyItem("missed", 3, (4,)),
        VerifyItem("b", 0, (9,), Grower().tree(), Sampling(temperature=1.0, seed=3)),
        VerifyItem("wrong", 0, (VOCAB_SIZE,)),
        VerifyItem("c", 0, (1, 2, 3), prefill_only=True),
        VerifyItem("lost", 0, (1,), TokenTree((1,), (0,))),
    ]
    together = verify(engine, items)
    apart: list[Verdict] = [verify(toy("toy:seed=1"), [item])[0] for item in items]
    assert together == apart
    assert [verdict.status.name for verdict in together] == ["OK", "CACHE_MISS", "OK", "REFUSED", "OK", "REFUSED"]


def test_walking_by_the_engines_picks_is_the_walk_of_the_core() -> None:
    tree = drafter("toy:seed=1,own=3,skill=0.9", Sampling(), 3, 2)([4, 5])
    text = plain_text([4, 5], 6)
    (verdict,) = verify(toy("toy:seed=1"), [VerifyItem("a", 0, (4, 5), tree)])
    taken = walk(tree, lambda _, path: text[len(path)])
    assert (verdict.nodes, verdict.token_ids) == (taken.nodes, taken.token_ids)


def test_a_session_without_room_for_its_tree_goes_on_without_it() -> None:
    engine = toy("toy:seed=1")
    prompt = tuple(range(200)) + tuple(range(200)) + tuple(range(108))
    (verdict,) = verify(engine, [VerifyItem("a", 0, prompt, drafter("toy:seed=1", Sampling(), 1, 1)(list(prompt)))])
    assert verdict.status is Status.OK
    full = VerifyItem("b", 0, (*prompt, 1, 2, 3), TokenTree((1, 1), (ROOT, 0)))
    assert verify(engine, [full])[0].token_ids == verify(engine, [VerifyItem("c", 0, full.token_ids)])[0].token_ids
