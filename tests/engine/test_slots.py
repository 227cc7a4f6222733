"""Slots without a model: growth, compaction, eviction."""

from __future__ import annotations

import pytest
import torch

from cosine.engine.hf import slots
from cosine.engine.hf.slots import Plane, Slot, Slots

PLANES = (Plane(2, 3), Plane(2, 5), Plane(2, 3), Plane(2, 5))  # keys and values of two layers, of different widths


def fill(slot: Slot, start: int, end: int) -> None:
    """Writes each row's own number into it, plus 100 per plane."""
    for index, view in enumerate(slot.rows(start, end)):
        view.copy_(torch.arange(start, end).float()[:, None, None] + 100 * index)


def numbers(slot: Slot) -> list[list[float]]:
    return [view[:, 0, 0].tolist() for view in slot.rows(0, len(slot.tokens))]


def test_growth_keeps_the_sequence_of_every_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ROWS_FIRST", 2)
    slot = Slot(PLANES, torch.float32, torch.device("cpu"))
    slot.reserve(2)
    fill(slot, 0, 2)
    slot.extend([7, 8], ())
    slot.reserve(5)
    assert slot.capacity == 8
    assert numbers(slot) == [[0, 1], [100, 101], [200, 201], [300, 301]]


def test_compaction_gathers_the_path_of_every_plane() -> None:
    slot = Slot(PLANES, torch.float32, torch.device("cpu"))
    slot.reserve(8)
    fill(slot, 0, 8)
    slot.extend([7, 8], (20, 21, 22, 23))
    slot.compact([1, 3])
    assert slot.tokens == [7, 8, 21, 23]
    assert numbers(slot)[0] == [0, 1, 3, 5]
    assert numbers(slot)[3] == [300, 301, 303, 305]


def test_a_reused_slot_is_empty_and_keeps_its_memory() -> None:
    pool = Slots(PLANES, torch.float32, torch.device("cpu"), sessions_max=1)
    (first,) = pool.take(["a"])
    first.reserve(300)
    first.extend([1, 2, 3], (4,))
    (second,) = pool.take(["b"])
    assert second is first
    assert (second.tokens, second.tree_tokens, second.capacity) == ([], (), 512)
    assert pool.find("a") is None
