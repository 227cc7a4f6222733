"""Sample and match commits the target's law: enumerated over every tree of depth 2 and every outcome of every pick."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from cosine.core.acceptance import walk
from cosine.core.tree import ROOT, Grower, TokenTree, children

TOKENS = (0, 1, 2)
LENGTH = 3
EXACT = 1e-12

Context = tuple[int, ...]
Law = dict[Context, float]
Rule = Callable[[TokenTree, Context], Law]


class _Undecided(Exception):
    """The walk asked for one more pick than the script says."""


def random_law(seed: int) -> dict[Context, list[float]]:
    """Chances of the next token after every context shorter than LENGTH."""
    dice = np.random.default_rng(seed)
    contexts = [context for length in range(LENGTH) for context in itertools.product(TOKENS, repeat=length)]
    return {context: dice.dirichlet([0.7] * len(TOKENS)).tolist() for context in contexts}


TARGET = random_law(1)
DRAFTER = random_law(2)


def all_trees() -> Iterator[TokenTree]:
    """Every tree of depth 2 at most: each token may stand below the root, and below it any set of tokens."""
    options: list[set[int] | None] = [None]
    options += [set(tokens) for count in range(4) for tokens in itertools.combinations(TOKENS, count)]
    for choice in itertools.product(options, repeat=len(TOKENS)):
        grower = Grower()
        for token, below in zip(TOKENS, choice, strict=True):
            if below is not None:
                node = grower.add(ROOT, token, DRAFTER[()][token], 1)
                for child in sorted(below):
                    grower.add(node, child, DRAFTER[(token,)][child], 1)
        yield grower.tree()


TREES = list(all_trees())


def sample_and_match(tree: TokenTree, context: Context) -> Law:
    """Chance of each run of committed tokens: every pick the walk asks for is followed to each of its outcomes."""
    law: Law = {}
    scripts: list[Context] = [()]
    while scripts:
        script = scripts.pop()
        try:
            committed = walk(tree, lambda _, path, script=script: _scripted(script, path)).token_ids  # type: ignore[misc]  # mypy infers no lambda with a default
        except _Undecided:
            scripts += [(*script, token) for token in TOKENS]
            continue
        law[committed] = float(np.prod([TARGET[context + script[:at]][script[at]] for at in range(len(script))]))
    return law


def _scripted(script: Context, path: Context) -> int:
    assert path == script[: len(path)], "the walk must know the path of its own picks"
    if len(path) == len(script):
        raise _Undecided
    return script[len(path)]


def min_p_over_q(tree: TokenTree, context: Context) -> Law:
    """The usual rejection rule on a tree whose tokens were not drawn by chance, which is where it is wrong."""
    kids = children(tree)
    law: Law = {}

    def go_on(node: int, path: Context, chance: float) -> None:
        left = np.array(TARGET[context + path])
        drafted = np.array(DRAFTER[context + path])
        for token, child in sorted(kids.get(node, {}).items(), key=lambda item: -drafted[item[0]]):
            taken = min(1.0, left[token] / drafted[token])
            go_on(child, (*path, token), chance * taken)
            chance *= 1 - taken
            left = np.maximum(left - drafted, 0)
            if chance == 0 or left.sum() == 0:
                return
            left /= left.sum()
        for token in TOKENS:
            law[(*path, token)] = law.get((*path, token), 0.0) + chance * float(left[token])

    go_on(ROOT, (), 1.0)
    return law


def text_law(rule: Rule, tree: TokenTree) -> Law:
    """Law of the first LENGTH tokens of the text: one round with the tree, then rounds without."""
    done: Law = {}
    open_: Law = rule(tree, ())
    while open_:
        text, chance = open_.popitem()
        if len(text) >= LENGTH:
            done[text[:LENGTH]] = done.get(text[:LENGTH], 0.0) + chance
            continue
        for more, its in rule(TokenTree(), text).items():
            open_[text + more] = open_.get(text + more, 0.0) + chance * its
    return done


def distance(law: Law) -> float:
    """Largest difference to the target's own law of LENGTH tokens."""
    texts = itertools.product(TOKENS, repeat=LENGTH)
    own = {text: float(np.prod([TARGET[text[:at]][text[at]] for at in range(LENGTH)])) for text in texts}
    assert law.keys() <= own.keys()
    return max(abs(law.get(text, 0.0) - chance) for text, chance in own.items())


def test_every_tree_of_depth_two_is_there() -> None:
    assert len(TREES) == 9**3
    assert len({tuple(sorted(zip(tree.parents, tree.token_ids, strict=True))) for tree in TREES}) > 100


def test_the_law_of_the_text_is_the_targets_for_every_tree() -> None:
    assert max(distance(text_law(sample_and_match, tree)) for tree in TREES) < EXACT


def test_the_same_check_finds_the_usual_rejection_rule_wrong() -> None:
    assert max(distance(text_law(min_p_over_q, tree)) for tree in TREES) > 0.05


def test_whatever_the_picks_are_every_tree_commits_a_beginning_of_the_same_text() -> None:
    for tree in TREES:
        kids = children(tree)
        for text in itertools.product(TOKENS, repeat=LENGTH):
            taken = walk(tree, lambda _, path, text=text: text[len(path)])  # type: ignore[misc]  # mypy infers no lambda with a default
            assert taken.token_ids == text[: len(taken.token_ids)]
            assert [tree.token_ids[node] for node in taken.nodes] == list(taken.token_ids[:-1])
            last = taken.nodes[-1] if taken.nodes else ROOT
            assert taken.token_ids[-1] not in kids.get(last, {}), "the walk goes as deep as the tree agrees"


def test_an_empty_tree_commits_one_token() -> None:
    assert walk(TokenTree(), lambda node, path: 7 + node + len(path)).token_ids == (6,)
