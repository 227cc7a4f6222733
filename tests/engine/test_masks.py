"""Masks against what each row must see, asked row by row: its own path, within its window."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_models import random_tree

from cosine.core.tree import EMPTY, TokenTree, path_to
from cosine.engine.hf.masks import Masks
from cosine.engine.hf.slots import Plane, Slot
from cosine.engine.hf.span import Span

CPU = torch.device("cpu")


def span(held: int, chain: int, tree: TokenTree = EMPTY, start: int = 0) -> Span:
    slot = Slot((Plane(1, 1), Plane(1, 1)), torch.float32, CPU)
    slot.reserve(held + 1)
    slot.extend(range(held), ())
    made = Span(slot, tuple(range(chain)), tree)
    made.bind(start)
    return made


def seen_slowly(part: Span, row: int, window: int | None) -> set[int]:
    """Rows of the slot that a row of the span must see."""
    chain = len(part.token_ids)
    if row < chain:
        path = list(range(part.base + row + 1))
    else:
        nodes = path_to(part.tree, row - chain)
        path = [*range(part.base + chain), *(part.base + chain + node for node in nodes)]
    return set(path if window is None else path[-window:])


def random_spans(dice: random.Random) -> list[Span]:
    spans: list[Span] = []
    for _ in range(dice.randint(1, 4)):
        tree = random_tree(dice, 6) if dice.random() < 0.7 else EMPTY
        spans.append(span(dice.randint(0, 12), dice.randint(1, 4), tree, spans[-1].end if spans else 0))
    return spans


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_every_row_sees_its_own_path(window: int | None, repeats: int) -> None:
    dice = random.Random(4)
    for _ in range(40):
        spans = random_spans(dice)
        for part, mask in zip(spans, Masks(spans, CPU, torch.float32).apart(window, repeats), strict=True):
            for repeat in range(repeats):
                for row in range(part.row_count):
                    expected = seen_slowly(part, row, window)
                    if mask is None:
                        assert expected == set(range(part.length))
                        continue
                    shown = mask[repeat * part.row_count + row]
                    assert set((shown == 0).nonzero()[:, 0].tolist()) == expected
                    assert shown[shown != 0].eq(torch.finfo(torch.float32).min).all()


@pytest.mark.parametrize("window", [None, 5])
def test_the_joint_mask_has_what_each_session_sees_on_its_diagonal_and_nothing_elsewhere(window: int | None) -> None:
    dice = random.Random(5)
    for _ in range(40):
        spans = random_spans(dice)
        mask = Masks(spans, CPU, torch.float32).joint(window, 2)
        if mask is None:
            assert [part.row_count for part in spans] == [1]
            assert seen_slowly(spans[0], 0, window) == set(range(spans[0].length))
            continue
        rows = sum(part.row_count for part in spans)
        assert mask.shape == (2 * rows, sum(part.length for part in spans))
        column = 0
        for part in spans:
            for row in range(part.row_count):
                expected = {column + place for place in seen_slowly(part, row, window)}
                for repeat in range(2):
                    shown = mask[repeat * rows + part.start + row]
                    assert set((shown == 0).nonzero()[:, 0].tolist()) == expected
            column += part.length


def test_a_pass_of_single_rows_needs_no_masks() -> None:
    assert Masks([span(9, 1), span(3, 1)], CPU, torch.float32).apart(None, 2) == [None, None]


def test_half_precision_hides_with_its_own_lowest_number() -> None:
    (mask,) = Masks([span(2, 2)], CPU, torch.float16).apart(None, 1)
    assert mask is not None
    assert mask.tolist() == [[0.0, 0.0, 0.0, torch.finfo(torch.float16).min], [0.0, 0.0, 0.0, 0.0]]
