"""How alike a target finds drafted and committed tokens: where asked, for the right nodes, with the right numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONFIGS, VOCAB_SIZE, build, save

from cosine.core.sampling import Sampling
from cosine.core.tree import ROOT, TokenTree
from cosine.engine.base import EngineLimits
from cosine.engine.paced import Pace, PacedEngine
from cosine.engine.toy import ToyEngine
from cosine.engine.transformers_engine import load
from cosine.engine.verifying import Status, VerifyItem, verify

LIMITS = EngineLimits(sessions_max=4, tokens_max=100)


def toy() -> ToyEngine:
    return ToyEngine("toy:seed=1", "fingerprint", LIMITS)


def target_text(count: int) -> tuple[int, ...]:
    """What the toy target writes after the token 5."""
    engine, tokens = toy(), [5]
    while len(tokens) <= count:
        tokens += verify(engine, [VerifyItem("plain", 0, tuple(tokens))])[0].token_ids
    return tuple(tokens[1 : count + 1])


def bushy(text: tuple[int, ...]) -> TokenTree:
    """The first two tokens of a text in a row, each beside a wrong one, and more wrong ones below."""
    wrong = 255 if 255 not in text else 254
    tokens = (text[0], wrong, text[1], wrong, wrong, wrong)
    return TokenTree(tokens, (ROOT, ROOT, 0, 0, 1, 2))


def test_nodes_below_the_committed_path_are_judged_against_the_token_committed_beside_them() -> None:
    text = target_text(3)
    tree = bushy(text)
    engine = toy()
    (verdict,) = verify(engine, [VerifyItem("s", 0, (5,), tree, judge=True)])
    assert (verdict.nodes, verdict.token_ids) == ((0, 2), text)
    assert verdict.judged_nodes == (0, 1, 2, 3, 5), "node 4 hangs below a token that was not committed"
    places = {0: text[0], 1: text[0], 2: text[1], 3: text[1], 5: text[2]}
    expected = engine.agreement([tree.token_ids[node] for node in places], list(places.values()))
    assert verdict.agreements == tuple(expected)
    assert [verdict.agreements[verdict.judged_nodes.index(node)] for node in verdict.nodes] == [1.0, 1.0]


def test_only_items_that_ask_are_judged_and_the_rest_of_the_verdict_does_not_change() -> None:
    text = target_text(3)
    items = [VerifyItem(name, 0, (5,), bushy(text), judge=name == "asks") for name in ("asks", "not", "plain")]
    items[2] = VerifyItem("plain", 0, (5,), judge=True)
    asked, silent, plain = verify(toy(), items)
    assert asked.judged_nodes
    assert (asked.nodes, asked.token_ids, asked.cached_length) == (silent.nodes, silent.token_ids, silent.cached_length)
    assert silent.judged_nodes == silent.agreements == plain.judged_nodes == plain.agreements == ()


def test_where_nothing_is_committed_nothing_is_judged_and_rules_on_the_path_change_nothing() -> None:
    text = target_text(3)
    items = [
        VerifyItem("prefill", 0, (5, 6), bushy(text), prefill_only=True, judge=True),
        VerifyItem("missed", 9, (5,), bushy(text), judge=True),
        VerifyItem("ruled", 0, (5,), bushy(text), Sampling(presence_penalty=0.01), judge=True),
    ]
    prefill, missed, ruled = verify(toy(), items)
    assert (prefill.judged_nodes, missed.judged_nodes, missed.status) == ((), (), Status.CACHE_MISS)
    assert ruled.judged_nodes == (0, 1, 2, 3, 5)


class Counting(ToyEngine):
    """Counts how often it is asked for agreements."""

    asked_count = 0

    def agreement(self, token_ids: object, others: object) -> list[float]:
        self.asked_count += 1
        return super().agreement(token_ids, others)  # type: ignore[arg-type]  # passed on as they came


def test_a_batch_asks_the_engine_once_and_not_at_all_where_nobody_wants_to_know() -> None:
    tree = bushy(target_text(3))
    for judge, count in ((True, 1), (False, 0)):
        engine = Counting("toy:seed=1", "fingerprint", LIMITS)
        verify(engine, [VerifyItem(name, 0, (5,), tree, judge=judge) for name in "abc"])
        assert engine.asked_count == count


@given(st.integers(0, 256), st.integers(0, 256))
def test_the_toys_agreement_is_symmetric_and_whole_for_equal_tokens_only(left: int, right: int) -> None:
    one, other = toy().agreement([left, right], [right, left])
    assert one == other
    assert one == 1.0 if left == right else 0.0 <= one < 1.0


def test_a_paced_engine_agrees_with_the_engine_it_wraps() -> None:
    assert PacedEngine(toy(), Pace(1.0)).agreement([1, 2], [1, 3]) == toy().agreement([1, 2], [1, 3])


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_models_agreement_is_the_cosine_of_its_input_embeddings(name: str, tmp_path: Path) -> None:
    model = build(name)
    engine = load(str(save(model, tmp_path)), dtype="float32", limits=LIMITS)
    tokens, others = list(range(1, VOCAB_SIZE)), [(7 * token) % VOCAB_SIZE for token in range(1, VOCAB_SIZE)]
    table: torch.Tensor = model.get_input_embeddings().weight.detach()  # type: ignore[operator]  # the stubs say Tensor or Module of every attribute
    expected = torch.nn.functional.cosine_similarity(table[tokens], table[others])
    assert engine.agreement(tokens, others) == pytest.approx(expected.tolist(), abs=1e-5)
