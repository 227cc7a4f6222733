"""Passes that are stopped between layers and growths that are stopped between steps leave caches that are right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import VOCAB_SIZE, build, random_tree, save, slow_logits

from cosine.core.plan import DraftItem
from cosine.core.tree import ROOT, TokenTree, chain, path_to, path_tokens
from cosine.engine.base import Engine, EngineLimits, Segment, Stopped
from cosine.engine.drafting import draft
from cosine.engine.hf import assembly
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine
from cosine.engine.transformers_engine import load
from cosine.engine.verifying import Status, VerifyItem, verify

LIMITS = EngineLimits(sessions_max=4, tokens_max=100, prefill_chunk=5)
TREE = TokenTree((5, 6, 7, 8), (ROOT, 0, ROOT, 1))

ENGINES = ["toy", "paced-toy", "llama", "qwen2-mixed-windows", "gemma2-softcap", "gpt2", "llama-as-stock"]
ASKED_ONCE = {"toy"}  # its pass is one piece

Truth = Callable[[list[int]], NDArray[np.float32]]


class Stopper:
    """Says true from the `last`-th time on that it is asked."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.asked_count = 0

    def __call__(self) -> bool:
        self.asked_count += 1
        return self.asked_count >= self.last


def toy() -> ToyEngine:
    return ToyEngine("toy:seed=1", "", LIMITS)


def paced(engine: Engine) -> PacedEngine:
    """Ten milliseconds per pass of a clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return PacedEngine(engine, Pace(10.0), lambda: now[0], sleep)


def toy_truth(tokens: list[int]) -> NDArray[np.float32]:
    return toy().forward([Segment("slow", 0, tuple(tokens))]).row(0)


@pytest.fixture(params=ENGINES)
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Engine, Truth]]:
    name: str = request.param
    if "toy" in name:
        yield (toy() if name == "toy" else paced(toy())), toy_truth
        return
    if name == "llama-as-stock":
        monkeypatch.setattr(assembly, "recognised", lambda model: False)
    model = build(name.removesuffix("-as-stock"))
    yield load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS), lambda tokens: slow_logits(model, tokens)


def expect_rows(engine: Engine, truth: Truth, segment: Segment, text: list[int]) -> None:
    logits = engine.forward([segment])
    for node in range(ROOT, len(segment.tree)):
        expected = truth(text + path_tokens(segment.tree, node))
        np.testing.assert_allclose(logits.row(node + 1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("pair", "last"),
    [(name, last) for name in ENGINES for last in (1, 2) if last == 1 or name not in ASKED_ONCE],
    indirect=["pair"],
)
def test_a_stopped_pass_leaves_every_session_its_tokens_up_to_the_base(pair: tuple[Engine, Truth], last: int) -> None:
    engine, truth = pair
    texts = {"a": [1, 2, 3, 4, 9], "b": [7, 8]}
    for session, text in texts.items():
        engine.forward([Segment(session, 0, tuple(text), TREE)])
        engine.keep(session, [0])
        text.append(5)
    with pytest.raises(Stopped):
        engine.forward(
            [Segment("a", 3, (60, 61), TREE), Segment("b", 3, (62,), TREE), Segment("c", 0, (63, 64))], Stopper(last)
        )
    for session, held in (("a", [1, 2, 3]), ("b", [7, 8, 5]), ("c", [])):
        assert list(engine.tokens(session))[: len(held)] == held
        assert len(engine.tokens(session)) == len(held) or isinstance(engine, PacedEngine)
        expect_rows(engine, truth, Segment(session, len(held), (30, 31), TREE), [*held, 30, 31])


def test_a_paced_pass_that_is_stopped_while_it_sleeps_has_cached_what_it_ran() -> None:
    engine = paced(toy())
    engine.forward([Segment("a", 0, (1, 2))])
    with pytest.raises(Stopped):
        engine.forward([Segment("a", 1, (3, 4), TREE)], Stopper(3))
    assert list(engine.tokens("a")) == [1, 3, 4]
    expect_rows(engine, toy_truth, Segment("a", 2, (9,), TREE), [1, 3, 9])


def test_a_stopped_prompt_keeps_the_chunks_that_were_done(tmp_path: Path) -> None:
    model = build("llama")
    engine = load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS)
    prompt = list(range(10, 23))
    with pytest.raises(Stopped):
        engine.forward([Segment("a", 0, tuple(prompt))], Stopper(6))  # two layers each: in the third chunk
    assert list(engine.tokens("a")) == prompt[:10]
    expect_rows(engine, lambda tokens: slow_logits(model, tokens), Segment("a", 10, tuple(prompt[10:])), prompt)


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap"])
def test_stop_is_asked_before_every_layer(name: str, tmp_path: Path) -> None:
    engine = load(str(save(build(name), tmp_path)), dtype="float32", limits=LIMITS)
    stopper = Stopper(1000)
    engine.forward([Segment("a", 0, tuple(range(12))), Segment("b", 0, (1,))], stopper)
    assert stopper.asked_count == 3 * 2


def test_stopping_at_random_never_spoils_what_follows(tmp_path: Path) -> None:
    model = build("llama-grouped")
    engine = load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS)
    dice = random.Random(2)
    texts: dict[str, list[int]] = {session: [] for session in "abc"}
    for _ in range(25):
        session = dice.choice("abc")
        text = texts[session]
        base = dice.randint(max(0, len(text) - 4), len(text))
        fresh = tuple(dice.randrange(VOCAB_SIZE) for _ in range(dice.randint(1, 8)))
        segment = Segment(session, base, fresh, random_tree(dice, 6))
        text[base:] = fresh
        if len(text) > 70:
            del text[:]
            continue
        if dice.random() < 0.5:
            try:
                engine.forward([segment], Stopper(dice.randint(1, 5)))
            except Stopped:
                text[:] = engine.tokens(session)
                continue
        else:
            expect_rows(engine, lambda tokens: slow_logits(model, tokens), segment, text)
        path = path_to(segment.tree, dice.randint(ROOT, len(segment.tree) - 1))
        engine.keep(session, path)
        text += [segment.tree.token_ids[node] for node in path]
        assert list(engine.tokens(session)) == text


def test_a_stopped_verification_cancels_what_it_ran_and_still_says_what_could_not_run(
    pair: tuple[Engine, Truth],
) -> None:
    engine, _ = pair
    items = [VerifyItem("a", 0, (1, 2, 3), TREE), VerifyItem("b", 5, (1,)), VerifyItem("c", 0, ())]
    verdicts = verify(engine, items, lambda: True)
    assert [verdict.status for verdict in verdicts] == [Status.CANCELLED, Status.CACHE_MISS, Status.REFUSED]
    assert verdicts[0].cached_length == 0
    assert [verdict.status for verdict in verify(engine, items[:1], lambda: False)] == [Status.OK]
    (verdict,) = verify(engine, [VerifyItem("a", 2, (9,), TREE)], lambda: True)
    assert (verdict.status, verdict.cached_length, verdict.token_ids) == (Status.CANCELLED, 2, ())


@pytest.mark.parametrize("begun", [TokenTree(), chain([4], [0.9])], ids=["empty", "begun"])
def test_a_growth_that_is_stopped_answers_with_what_it_has_and_the_others_go_on(
    pair: tuple[Engine, Truth], begun: TokenTree
) -> None:
    engine, _ = pair
    items = [DraftItem(session, 0, (1, 2), step_count=4, width=2, tree=begun) for session in "abc"]
    alone = draft(engine, items)
    asked: list[str] = []

    def stop(session_id: str) -> bool:
        asked.append(session_id)
        return session_id == "a" or (session_id == "b" and asked.count("b") > 2)

    results = draft(engine, items, stop)
    assert [result.status for result in results] == [Status.CANCELLED, Status.CANCELLED, Status.OK]
    assert [len(result.tree) - len(begun) for result in results] == [0, 4, 8]
    for result, whole in zip(results, alone, strict=True):
        assert result.tree.token_ids == whole.tree.token_ids[: len(result.tree)]
    assert (asked.count("a"), asked.count("b"), asked.count("c")) == (1, 3, 4)
    assert results[0].cached_length == 0
    assert [result.tree.token_ids for result in draft(engine, items)] == [whole.tree.token_ids for whole in alone]


def test_a_growth_that_is_done_before_it_is_stopped_is_done() -> None:
    stopper = Stopper(2)
    (result,) = draft(toy(), [DraftItem("a", 0, (1,))], lambda _: stopper())
    assert result.status is Status.OK
