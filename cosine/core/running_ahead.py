"""What a drafter computes while nobody asks: the end of its own best path, where the next step probably begins.

Under token fusion a drafter waits, between its answer and the next step, for fusion and the slowest of the others. If
the fused token is its own, the children it found meanwhile are that step's, without a forward pass; if not, the pass is
rolled back like any guess. Answers are the same as without: a pass is left out only where it would repeat, token for
token, one whose children are still known, and a step is shown no more cached tokens than there would be without.

A step saves its pass only if all of its sessions go on as foreseen; where that is less likely than not (several
sessions, a drafter that is seldom the most confident), nothing is run.

Who runs the passes, on what and for how long is not known here, nor who asks; what a cache holds is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf

from cosine.core.picking import RowRule
from cosine.core.plan import DraftItem
from cosine.core.tree import ROOT, TokenTree, children

AHEAD_MAX = 4  # positions
EVEN = 0.5
RIGHT_PRIOR = 0.75
RIGHT_FADE = 0.95

Children = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True)
class Part:
    """What a pass runs of one session, without what hangs below it: the cache keeps `base_length` tokens, `token_ids`
    follow."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]

    @property
    def end(self) -> int:
        """Length of the sequence that the part completes."""
        return self.base_length + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Expansion(Part):
    """A part to run ahead, behind whose last token the `width` best children by `rule` are to be found."""

    rule: RowRule
    width: int


@dataclass(slots=True)
class _Ahead:
    """One session: the context of its last answer, to `item`, is `start` tokens long, its best path and what was found
    ahead of that are `path`, of which `left` ends are still to be expanded. `found` are children by the length of the
    sequence they continue, `shown` the length of the cache as it would be without running ahead."""

    item: DraftItem
    shown: int
    start: int = 0
    path: list[int] = field(default_factory=list)
    left: int = 0
    found: dict[int, Children] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Length of the sequence that is expanded next."""
        return self.start + len(self.path)

    def foresees(self, item: DraftItem) -> bool:
        """Whether an item goes on from the path that is being run ahead."""
        offset = item.base_length - self.start
        return offset >= 0 and tuple(self.path[offset : offset + len(item.token_ids)]) == item.token_ids


class Foresight:
    """All sessions of a drafter whose cache holds at most `sessions_max` sessions of `tokens_max` tokens.

    Around every step come `begin`, `shown` and `answer` as it runs, `end`; in between `next_pass`, and `learn` of each
    one that was run to its end. `pass_count` passes were run ahead, which spared steps `skipped_count` rows.
    """

    def __init__(self, sessions_max: float = inf, tokens_max: float = inf) -> None:
        self.pass_count = 0
        self.skipped_count = 0
        self._sessions_max, self._tokens_max = sessions_max, tokens_max
        self._aheads: dict[str, _Ahead] = {}
        self._turn: list[str] = []
        self._right = RIGHT_PRIOR

    # -- around a step

    def begin(self, items: Iterable[DraftItem]) -> None:
        """A step is asked for: drops children that are not what it needs, and learns whether it was foreseen."""
        for item in items:
            ahead = self._aheads.get(item.session_id)
            if ahead is None:
                continue
            if ahead.item.sampling != item.sampling or ahead.item.width < item.width:
                ahead.found.clear()
            if ahead.path and item.base_length >= ahead.start:
                self._right += (1 - RIGHT_FADE) * (ahead.foresees(item) - self._right)

    def shown(self, session_id: str, held: Sequence[int]) -> Sequence[int]:
        """Of the tokens that the cache holds of a session, those that it would hold without running ahead."""
        ahead = self._aheads.get(session_id)
        return held if ahead is None or len(held) <= ahead.shown else held[: ahead.shown]

    def answer(self, part: Part, held: Sequence[int], bare: bool) -> Children | None:
        """The children behind a part of a step's pass that need not be run: they are known, and the cache, which holds
        the tokens `held`, has the part's. None for one that must be; that ends running ahead of its session.

        `bare` says that nothing hangs below the part, and that no session comes anew with its pass: that one may take
        the slot of one that is not in it.
        """
        ahead = self._aheads.get(part.session_id)
        if ahead is None:
            return None
        if bare and part.end in ahead.found and tuple(held[part.base_length : part.end]) == part.token_ids:
            ahead.shown = part.end
            self.skipped_count += 1
            return ahead.found[part.end]
        del self._aheads[part.session_id]
        return None

    def rides(self, session_id: str) -> bool:
        """True while a session's cache is what running ahead has made of it."""
        return session_id in self._aheads

    def end(self, answers: Iterable[tuple[DraftItem, TokenTree | None]], held: Callable[[str], Sequence[int]]) -> None:
        """Notes where to run ahead of a step's answers (None: there is none). `held` tells what the cache holds."""
        self._turn = []
        for item, tree in answers:
            self._go_on(item, [] if tree is None or not item.run_ahead else best_path(tree), held)
            if item.run_ahead:
                self._turn.append(item.session_id)

    def close(self, session_ids: Iterable[str]) -> None:
        """These sessions are over."""
        for session_id in session_ids:
            self._aheads.pop(session_id, None)

    # -- while nobody asks

    def next_pass(self, held: Callable[[str], Sequence[int]]) -> list[Expansion]:
        """What to run next, for those sessions of the last step that asked for it; empty where nothing is left, or
        where it would probably be in vain. Children whose tokens the pass overwrites are dropped."""
        present = [(name, self._aheads[name]) for name in self._turn if name in self._aheads]
        found = [expansion for name, ahead in present if (expansion := self._expansion(ahead, held(name))) is not None]
        if self._right ** len(self._turn) < EVEN:
            return []
        for expansion in found:
            ahead = self._aheads[expansion.session_id]
            ahead.found = {length: kids for length, kids in ahead.found.items() if length <= expansion.base_length}
        return found

    def foreseen(self, items: Iterable[DraftItem]) -> bool:
        """Whether all of these go on from paths that are run ahead, so that the pass under way is what they need."""
        aheads = ((self._aheads.get(item.session_id), item) for item in items)
        return all(ahead is not None and ahead.foresees(item) for ahead, item in aheads)

    def learn(self, found: Mapping[str, Children]) -> None:
        """A pass has been run to its end; children by session."""
        self.pass_count += 1
        for session_id, kids in found.items():
            ahead = self._aheads[session_id]
            ahead.found[ahead.end] = kids

    # -- one session

    def _go_on(self, item: DraftItem, path: list[int], held: Callable[[str], Sequence[int]]) -> None:
        """Turns to the end of an answer. Only the first pass of a step can be foreseen where it has a beam."""
        known = self._aheads.pop(item.session_id, None)
        if known is None and not path:
            return
        ahead = known or _Ahead(item, len(held(item.session_id)))
        ahead.item, ahead.start, ahead.path = item, item.base_length + len(item.token_ids), path
        ahead.left = min(AHEAD_MAX, item.step_count if item.beam == 1 else 1) if path else 0
        ahead.found = {length: kids for length, kids in ahead.found.items() if length > ahead.start and path}
        self._aheads[item.session_id] = ahead
        if len(self._aheads) > self._sessions_max:
            del self._aheads[next(iter(self._aheads))]

    def _expansion(self, ahead: _Ahead, held: Sequence[int]) -> Expansion | None:
        """A session's path beyond what is cached; None where it has run far enough."""
        cached = _agreeing(held, ahead)
        while ahead.left and cached == len(ahead.path) and ahead.end in ahead.found:
            ahead.left -= 1
            ahead.path += ahead.found[ahead.end][0][:1]
            cached = _agreeing(held, ahead)
        if not ahead.left or len(held) < ahead.start or ahead.end > self._tokens_max:
            ahead.left = 0
            return None
        cached = min(cached, len(ahead.path) - 1)
        tokens, rule = tuple(ahead.path[cached:]), RowRule(ahead.item.sampling, ahead.end)
        return Expansion(ahead.item.session_id, ahead.start + cached, tokens, rule, ahead.item.width)


def best_path(tree: TokenTree) -> list[int]:
    """Tokens from the root down, child by most confident child (ties: lowest id): where fusion goes on if this drafter
    is the most confident one."""
    kids = children(tree)
    path: list[int] = []
    node = ROOT
    while node in kids:
        node = max(kids[node].values(), key=lambda kid: (tree.confidences[kid], -tree.token_ids[kid]))
        path.append(tree.token_ids[node])
    return path


def _agreeing(held: Sequence[int], ahead: _Ahead) -> int:
    """How much of the path is cached."""
    pairs = zip(held[ahead.start :], ahead.path, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
