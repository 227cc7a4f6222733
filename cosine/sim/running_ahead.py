"""What a drafter runs ahead while nobody asks, in virtual time: the passes of `cosine.engine.running_ahead`, by its
rules.

It says which pass comes next, whether what is asked for meanwhile needs it, and which passes of a step need not be run
any more. It does not know how long a pass takes or who asks, and it answers no step: a recording says the same with
and without a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from cosine.core.plan import StepItem
from cosine.core.tree import ROOT
from cosine.sim.growth import Growth, Part
from cosine.sim.library import Context, key_after

AHEAD_MAX = 4  # this and the rest as in the engine
EVEN = 0.5
RIGHT_PRIOR = 0.75
RIGHT_FADE = 0.95

BestChild = Callable[[StepItem, Context, int, int], int | None]


@dataclass(slots=True)
class Ahead:
    """One session, see `cosine.engine.running_ahead`. `keys` are those of the places behind the first `start` tokens
    and behind each of `path`; `found` is the best child by length of the sequence (None: it has none)."""

    item: StepItem
    start: int
    shown: int
    path: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    left: int = 0
    found: dict[int, int | None] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Length of the sequence that is expanded next."""
        return self.start + len(self.path)


class RunningAhead:
    """All sessions of a drafter, whose caches are `contexts`. `best_child` says what the drafter guesses behind a
    context's first so many tokens, at a place of that key."""

    def __init__(self, contexts: Mapping[str, Context], best_child: BestChild) -> None:
        self.pass_count = 0
        self.skipped_count = 0
        self._contexts = contexts
        self._best_child = best_child
        self._aheads: dict[str, Ahead] = {}
        self._turn: list[str] = []
        self._right = RIGHT_PRIOR

    # -- around a step

    def step_begins(self, items: Sequence[StepItem]) -> None:
        """Learns whether the steps are those that were foreseen."""
        for item in items:
            ahead = self._aheads.get(item.session_id)
            if ahead is None:
                continue
            if ahead.item.sampling != item.sampling or ahead.item.width < item.width:
                ahead.found.clear()
            if ahead.path and item.base_length >= ahead.start:
                self._right += (1 - RIGHT_FADE) * (self._foreseen(item) - self._right)

    def held(self, session_id: str) -> list[int]:
        """The tokens that the cache would hold without running ahead."""
        context, ahead = self._contexts.get(session_id), self._aheads.get(session_id)
        held = [] if context is None else context.token_ids
        return held[:] if ahead is None else held[: ahead.shown]

    def skips(self, part: Part, cached: Sequence[int], bare: bool) -> bool:
        """True where a step's pass over a part need not be run: its children are known, and `cached`, all that the
        cache holds, has its tokens. `bare` says that nothing hangs below them. What is run ends running ahead."""
        ahead = self._aheads.get(part.session_id)
        if ahead is None:
            return False
        end = part.base_length + len(part.token_ids)
        if bare and end in ahead.found and tuple(cached[part.base_length : end]) == part.token_ids:
            ahead.shown = end
            self.skipped_count += 1
            return True
        del self._aheads[part.session_id]
        return False

    def rides(self, session_id: str) -> bool:
        """True while a session's cache is what running ahead has made of it."""
        return session_id in self._aheads

    def step_ends(self, growths: Sequence[tuple[StepItem, Growth | None]]) -> None:
        """Notes where to run ahead of the answers (None: there is none)."""
        for item, growth in growths:
            self._go_on(item, growth)
        self._turn = [item.session_id for item, _ in growths if item.run_ahead]

    def close(self, session_id: str) -> None:
        """The session is over."""
        self._aheads.pop(session_id, None)

    def _go_on(self, item: StepItem, growth: Growth | None) -> None:
        known = self._aheads.pop(item.session_id, None)
        path, keys = _best_path(growth) if growth is not None and item.run_ahead else ([], [])
        if known is None and not path:
            return
        ahead = known or Ahead(item, 0, len(self._contexts[item.session_id].token_ids))
        ahead.item, ahead.start = item, item.base_length + len(item.token_ids)
        ahead.path, ahead.keys = path, keys
        ahead.left = min(AHEAD_MAX, item.step_count if item.beam == 1 else 1) if path else 0
        ahead.found = {length: child for length, child in ahead.found.items() if length > ahead.start and path}
        self._aheads[item.session_id] = ahead

    # -- while nobody asks

    def next_pass(self) -> list[Part]:
        """The next pass, for those sessions of the last step that asked for it; none where nothing is left, or where it
        would probably be in vain."""
        present = [(session_id, self._aheads[session_id]) for session_id in self._turn if session_id in self._aheads]
        parts = [part for session_id, ahead in present if (part := self._next(session_id, ahead)) is not None]
        if self._right ** len(self._turn) < EVEN:
            return []
        for part in parts:
            ahead = self._aheads[part.session_id]
            ahead.found = {length: child for length, child in ahead.found.items() if length <= part.base_length}
        return parts

    def foreseen(self, items: Sequence[StepItem]) -> bool:
        """Whether the pass under way is what all of these need."""
        return all(map(self._foreseen, items))

    def end_pass(self, parts: Sequence[Part], finished: bool) -> None:
        """The pass has ended, or was given up on its way."""
        self.pass_count += finished
        for part in parts:
            context, ahead = self._contexts[part.session_id], self._aheads[part.session_id]
            context.append(part.base_length, part.token_ids if finished else ())
            if finished:
                ahead.found[ahead.end] = self._best_child(ahead.item, context, ahead.end, ahead.keys[-1])

    def _foreseen(self, item: StepItem) -> bool:
        ahead = self._aheads.get(item.session_id)
        if ahead is None or item.base_length < ahead.start:
            return False
        offset = item.base_length - ahead.start
        return tuple(ahead.path[offset : offset + len(item.token_ids)]) == item.token_ids

    def _next(self, session_id: str, ahead: Ahead) -> Part | None:
        """A session's path beyond what is cached; None where it has run far enough."""
        context = self._contexts[session_id]
        cached = _agreeing(context, ahead)
        while ahead.left and cached == len(ahead.path) and ahead.end in ahead.found:
            ahead.left -= 1
            child = ahead.found[ahead.end]
            if child is not None:
                ahead.keys.append(key_after(context.script, ahead.end, ahead.keys[-1], child))
                ahead.path.append(child)
            cached = _agreeing(context, ahead)
        if not ahead.left or len(context.token_ids) < ahead.start:
            ahead.left = 0
            return None
        cached = min(cached, len(ahead.path) - 1)
        return Part(session_id, ahead.start + cached, tuple(ahead.path[cached:]))


def _agreeing(context: Context, ahead: Ahead) -> int:
    """How much of the path is cached."""
    pairs = zip(context.token_ids[ahead.start :], ahead.path, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _best_path(growth: Growth) -> tuple[list[int], list[int]]:
    """From the root down, child by most confident child (ties: lowest id): the tokens, and the keys behind the root and
    behind each of them."""
    kids: dict[int, list[int]] = {}
    for node, parent in enumerate(growth.parents):
        kids.setdefault(parent, []).append(node)
    path, keys, node = list[int](), [growth.root_key], ROOT
    while node in kids:
        node = max(kids[node], key=lambda kid: (growth.confidences[kid], -growth.token_ids[kid]))
        path.append(growth.token_ids[node])
        keys.append(growth.keys[node])
    return path, keys
