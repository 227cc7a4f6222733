"""Items that break a rule: the target says why, and judges the others of the batch as if they were alone."""

from __future__ import annotations

import math

import pytest

from cosine.core.sampling import BIAS_ENTRIES_MAX, GREEDY, LOGPROBS_MAX, Sampling
from cosine.core.tree import EMPTY, ROOT, TokenTree, chain
from cosine.engine.base import EngineLimits
from cosine.engine.toy import ToyEngine
from cosine.engine.verifying import Status, VerifyItem, verify

TOKENS_MAX = 32
WARM = Sampling(temperature=1.0, seed=3)


def toy() -> ToyEngine:
    return ToyEngine("toy:seed=1", "", EngineLimits(sessions_max=4, tokens_max=TOKENS_MAX))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (Sampling(logit_bias=((99_999, 1.0),)), "token ids 0..256"),
        (Sampling(logit_bias=((5, math.nan),)), "logit_bias[5]"),
        (Sampling(logit_bias=((5, 1.0),) * (BIAS_ENTRIES_MAX + 1)), "at most"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(temperature=1.0, top_p=0.0), "top_p"),
        (Sampling(temperature=1.0, top_k=-1), "top_k"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(logprobs=LOGPROBS_MAX + 1), "logprobs"),
    ],
)
def test_rules_out_of_range_are_refused_by_name_and_the_others_are_judged(bad: Sampling, named: str) -> None:
    fine = VerifyItem("b", 0, (1, 2), chain([5]), WARM)
    refused, judged = verify(toy(), [VerifyItem("a", 0, (1, 2), sampling=bad), fine])
    assert (refused.status, refused.token_ids) == (Status.REFUSED, ())
    assert named in refused.reason
    assert [judged] == verify(toy(), [fine])


@pytest.mark.parametrize(
    ("token_ids", "tree"),
    [
        ((), EMPTY),
        ((257,), EMPTY),
        ((1,) * (TOKENS_MAX + 1), EMPTY),
        ((1,), TokenTree((4,), (3,))),
        ((1,), TokenTree((257,), (ROOT,))),
    ],
)
def test_tokens_and_trees_that_do_not_fit_are_refused(token_ids: tuple[int, ...], tree: TokenTree) -> None:
    refused, judged = verify(toy(), [VerifyItem("a", 0, token_ids, tree), VerifyItem("b", 0, (1, 2))])
    assert refused.status is Status.REFUSED
    assert refused.reason
    assert judged.status is Status.OK


def test_the_rules_of_a_prompt_that_is_only_read_are_looked_at_too() -> None:
    bad = VerifyItem("a", 0, (1, 2), sampling=Sampling(top_k=-1), prefill_only=True)
    assert [verdict.status for verdict in verify(toy(), [bad])] == [Status.REFUSED]
    assert verify(toy(), [VerifyItem("a", 0, (1, 2), sampling=GREEDY, prefill_only=True)])[0].status is Status.OK
