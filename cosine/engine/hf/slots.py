"""Keys and values of sessions: one slot each, its own length, grown by doubling, compacted after a tree.

Knows tensors and tokens, not models: what is stored per layer is given as shapes. A row is one position of the cache;
rows `0..len(tokens)-1` are the sequence, rows behind them are scratch that the next pass overwrites.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_FIRST = 128


@dataclass(frozen=True, slots=True)
class Plane:
    """Shape of one cached tensor of one layer: `[rows, heads, width]`, so that what a pass reads lies in one piece."""

    heads: int
    width: int


class Slot:
    """The cache of one session. `planes` come in the order key, value of layer 0, key, value of layer 1, ..."""

    def __init__(self, planes: Sequence[Plane], dtype: torch.dtype, device: torch.device) -> None:
        self.tokens: list[int] = []
        self.tree_tokens: tuple[int, ...] = ()
        self._planes = planes
        self._dtype = dtype
        self._device = device
        self._groups = _by_shape(planes)
        self.capacity = 0
        self.blocks: list[Tensor] = [self._empty(plane, members, 0) for plane, members in self._groups.items()]

    def _empty(self, plane: Plane, members: Sequence[int], rows: int) -> Tensor:
        return torch.empty((len(members), rows, plane.heads, plane.width), dtype=self._dtype, device=self._device)

    def reserve(self, rows: int) -> None:
        """Makes room for `rows`, keeping those of the sequence."""
        if rows <= self.capacity:
            return
        self.capacity = max(ROWS_FIRST, 1 << (rows - 1).bit_length())
        used = len(self.tokens)
        for index, (plane, members) in enumerate(self._groups.items()):
            block = self._empty(plane, members, self.capacity)
            block[:, :used].copy_(self.blocks[index][:, :used])
            self.blocks[index] = block

    def rows(self, start: int, end: int) -> list[Tensor]:
        """Views `[end - start, heads, width]` of every plane, in the order of `planes`."""
        if len(self.blocks) == 1:
            return list(self.blocks[0].narrow(1, start, end - start).unbind(0))
        views: list[Tensor] = [self.blocks[0]] * len(self._planes)
        for block, members in zip(self.blocks, self._groups.values(), strict=True):
            for member, view in zip(members, block.narrow(1, start, end - start).unbind(0), strict=True):
                views[member] = view
        return views

    def extend(self, token_ids: Sequence[int], tree_tokens: tuple[int, ...]) -> None:
        """Says what a pass has written behind the sequence: tokens that join it, then the nodes of a tree."""
        self.tokens.extend(token_ids)
        self.tree_tokens = tree_tokens

    def compact(self, nodes: Sequence[int]) -> None:
        """The path `nodes` of the tree behind the sequence joins it; the rest of the tree is forgotten."""
        first = len(self.tokens)
        if any(node != place for place, node in enumerate(nodes)):
            self._gather(first, [first + node for node in nodes])
        self.tokens.extend(self.tree_tokens[node] for node in nodes)
        self.tree_tokens = ()

    def _gather(self, start: int, rows: Sequence[int]) -> None:
        """Moves rows to `start` and behind it."""
        with torch.inference_mode():
            source = torch.tensor(rows, device=self._device)
            for block in self.blocks:
                block[:, start : start + len(rows)] = block.index_select(1, source)

    def roll_back(self, length: int) -> None:
        """Forgets the tree and all tokens from `length` on."""
        del self.tokens[length:]
        self.tree_tokens = ()


class Slots:
    """The slots of an engine by session, least recently used first. At most `sessions_max` of them."""

    def __init__(self, planes: Sequence[Plane], dtype: torch.dtype, device: torch.device, sessions_max: int) -> None:
        self._planes = tuple(planes)
        self._dtype = dtype
        self._device = device
        self._sessions_max = sessions_max
        self._slots: OrderedDict[str, Slot] = OrderedDict()

    def find(self, session_id: str) -> Slot | None:
        """The slot of a session, or None; does not count as use."""
        return self._slots.get(session_id)

    def take(self, session_ids: Sequence[str]) -> list[Slot]:
        """One slot per session; new ones reuse those of the least recently used sessions outside `session_ids`."""
        for session_id in session_ids:
            if session_id in self._slots:
                self._slots.move_to_end(session_id)
        for session_id in session_ids:
            if session_id not in self._slots:
                self._slots[session_id] = self._fresh()
        return [self._slots[session_id] for session_id in session_ids]

    def _fresh(self) -> Slot:
        if len(self._slots) < self._sessions_max:
            return Slot(self._planes, self._dtype, self._device)
        _, slot = self._slots.popitem(last=False)
        slot.roll_back(0)
        return slot

    def drop(self, session_ids: Iterable[str]) -> None:
        """Forgets sessions and frees their memory; unknown ones are ignored."""
        for session_id in session_ids:
            self._slots.pop(session_id, None)


def _by_shape(planes: Sequence[Plane]) -> dict[Plane, list[int]]:
    groups: dict[Plane, list[int]] = {}
    for index, plane in enumerate(planes):
        groups.setdefault(plane, []).append(index)
    return groups
