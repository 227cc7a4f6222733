"""In virtual time, too, routing hears what each drafter thought of its tokens where the score asks for that."""

from __future__ import annotations

from typing import Any

import pytest

from cosine.core.live import Live
from cosine.core.tree import ROOT, TokenTree
from cosine.sim.library import Library, key_after
from cosine.sim.load import closed_load
from cosine.sim.outcome import run
from tests.sim.parks import library, park


class Learning:
    """Keeps what requests learn from: their tokens so far, their drafters and the tree that was judged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[tuple[int, ...], tuple[str, ...], TokenTree]] = []
        learn = Live.learn

        def keep(live: Live, verdict: Any, tree: TokenTree, *more: Any) -> None:
            self.seen.append((tuple(live.tokens), live.models, tree))
            learn(live, verdict, tree, *more)

        monkeypatch.setattr(Live, "learn", keep)


def said(texts: Library, name: str, context: tuple[int, ...], tree: TokenTree, node: int) -> float:
    """What a drafter of the recording thinks of a node's token behind the node's parent."""
    script, length, key = texts.script_of(context), len(context), 0
    way: list[int] = []
    above = tree.parents[node]
    while above != ROOT:
        way.append(tree.token_ids[above])
        above = tree.parents[above]
    for token in reversed(way):
        key = key_after(script, length, key, token)
        length += 1
    return dict(texts.children(texts.drafters.index(name), True, script, length, key))[tree.token_ids[node]]


def test_the_route_hears_of_every_proposer_what_it_said_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = Learning(monkeypatch)
    run(park(), library(), "cosine:score=harmonic", closed_load(2, 4, 48))
    trees = [tree for _, _, tree in learning.seen if tree]
    assert any(len(opinions) > 1 for tree in trees for opinions in tree.opinions)
    for context, models, tree in learning.seen:
        for node, bits in enumerate(tree.proposers):
            proposers = [model for bit, model in enumerate(models) if bits >> bit & 1]
            own = [said(library(), name, context, tree, node) for name in proposers]
            assert tree.opinions[node] == pytest.approx(own)


def test_without_that_score_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    learning = Learning(monkeypatch)
    run(park(), library(), "cosine:score=hits", closed_load(2, 4, 48))
    assert any(tree for _, _, tree in learning.seen)
    assert not any(tree.opinions for _, _, tree in learning.seen)
