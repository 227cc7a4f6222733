"""A request whose unverified stretches follow one another to the target without waiting for verdicts.

PipeInfer (arXiv 2407.11798) keeps several stretches at one target, DSI (arXiv 2405.14105) one at each of several
targets. A stretch hangs a chain of drafted tokens below everything before it, drafted or committed, as if that were
true. Verdicts are taken in the order of the text; the first token that differs from the drafted one makes everything
behind it worthless: stretches and drafts on their way are given up. A target that had no room for a stretch answers
with fewer tokens: what follows is sent again, from where it ended. While nothing of a request is at a target, its next
stretch goes out at once, drafted or not, so that it is never slower than plain decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cosine.core.events import SessionVerdict, TokenLogprob
from cosine.core.tree import TokenTree


@dataclass(slots=True, eq=False)
class Stretch:
    """A part of a request at a target: `count` drafted tokens below the first `start` tokens of the sequence, of which
    the target held `base` before."""

    peer_id: str
    start: int
    count: int
    base: int = 0
    batch_id: int = 0
    verdict: SessionVerdict | None = None


@dataclass(slots=True)
class Taken:
    """What verdicts brought: committed tokens with the verdicts they are from, and stretches that are worthless now."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    verdicts: list[tuple[Stretch, SessionVerdict]] = field(default_factory=list)
    given_up: list[Stretch] = field(default_factory=list)
    diverged: bool = False


@dataclass(slots=True)
class Stream:
    """The state of one such request beyond its committed tokens.

    `held` counts the tokens each target will hold once it has seen all its stretches, `prefilling` those of the part of
    the context it is reading that still hold good; `drafting_from` is the length of the sequence a plan under way goes
    on from.
    """

    runs_max: int
    per_peer_max: int
    value_min: float
    peer_ids: list[str] = field(default_factory=list)
    speculated: list[int] = field(default_factory=list)
    stretches: deque[Stretch] = field(default_factory=deque)
    held: dict[str, int] = field(default_factory=dict)
    prefilling: dict[str, int] = field(default_factory=dict)
    drafting_from: int = 0
    exhausted: bool = False

    def wants_draft(self, committed_count: int, left: int) -> bool:
        """True where drafting on may pay: not too far ahead of the verdicts, and the last draft was not cut off."""
        if self.drafting_from or self.exhausted or len(self.speculated) >= left - 1:
            return False
        return len(self.stretches) + (self._unsent(committed_count) > 0) < self.runs_max

    def has_next(self, committed_count: int) -> bool:
        """True where something can go to a target: drafted tokens, or the request has nothing there at all."""
        return not self.stretches or self._unsent(committed_count) > 0

    def next_start(self, committed_count: int) -> int:
        """Length of the sequence up to which everything is at a target or committed."""
        return max(committed_count, self.stretches[-1].start + self.stretches[-1].count if self.stretches else 0)

    def _unsent(self, committed_count: int) -> int:
        return committed_count + len(self.speculated) - self.next_start(committed_count)

    def may_send(self, peer_id: str, committed_count: int) -> bool:
        """True where something should go to this target now."""
        there = sum(stretch.peer_id == peer_id for stretch in self.stretches)
        return peer_id not in self.prefilling and there < self.per_peer_max and self.has_next(committed_count)

    def read(self, peer_id: str, cached_length: int) -> None:
        """A target has read a part of the context; what was drafted of it may have been refuted meanwhile."""
        self.held[peer_id] = min(cached_length, self.prefilling.pop(peer_id, cached_length))

    def next_stretch(self, peer_id: str, committed_count: int, count_max: int) -> Stretch:
        """The stretch that follows what is at the targets already; it counts as sent from now on."""
        start = self.next_start(committed_count)
        base = min(self.held.get(peer_id, 0), start - 1)
        stretch = Stretch(peer_id, start, min(count_max, self._unsent(committed_count)), base)
        self.stretches.append(stretch)
        self.held[peer_id] = start + stretch.count
        return stretch

    def drafted(self, tree: TokenTree, committed: Sequence[int]) -> None:
        """A chain has been drafted below the sequence of `drafting_from` tokens. What comes before the first token that
        its drafter is less sure of than `value_min` is kept, whatever the product: the next chain goes on behind it."""
        start, self.drafting_from = self.drafting_from, 0
        count = next((node for node, sure in enumerate(tree.confidences) if sure < self.value_min), len(tree))
        kept = list(tree.token_ids[:count])
        end = len(committed) + len(self.speculated)
        if start < end:  # the target was faster: what it committed meanwhile must be what was drafted
            known = [*committed, *self.speculated][start:]
            kept = kept[len(known) :] if kept[: len(known)] == known else []
        elif not kept:
            self.exhausted = True
        self.speculated += kept

    def judged(self, stretch: Stretch, verdict: SessionVerdict, committed: Sequence[int]) -> Taken:
        """A verdict on a stretch; what it and those that waited for it bring. `committed` is not changed."""
        taken = Taken()
        if stretch not in self.stretches:
            return taken
        if verdict.missed or not verdict.token_ids:
            self.held[stretch.peer_id] = verdict.cached_length
            taken.given_up = self.give_up(stretch)
            return taken
        stretch.verdict = verdict
        count, cut_off = len(committed), False
        while self.stretches and self.stretches[0].verdict is not None and not cut_off:
            first = self.stretches.popleft()
            assert first.verdict is not None
            skip = count - first.start
            assert skip >= 0, "what comes before has been judged"
            fresh = self._confirmed(first.verdict.token_ids[skip:], taken)
            taken.token_ids += fresh
            taken.logprobs += first.verdict.logprobs[skip : skip + len(fresh)]
            taken.verdicts.append((first, first.verdict))
            count += len(fresh)
            cut_off = taken.diverged or len(first.verdict.token_ids) <= first.count
        if taken.token_ids:
            self.exhausted = False
        if taken.diverged:
            self.speculated, self.drafting_from = [], 0
        if cut_off:
            taken.given_up = self.give_up(None)
            self.held = {peer: min(length, count - 1) for peer, length in self.held.items()}
            self.prefilling = {peer: min(length, count - 1) for peer, length in self.prefilling.items()}
        return taken

    def _confirmed(self, token_ids: Sequence[int], taken: Taken) -> list[int]:
        """The target's tokens up to and with the first that differs from what was drafted in its place."""
        fresh: list[int] = []
        for token in token_ids:
            fresh.append(token)
            if self.speculated and self.speculated[0] != token:
                taken.diverged = True
                break
            del self.speculated[:1]
        return fresh

    def give_up(self, first: Stretch | None) -> list[Stretch]:
        """Drops a stretch and all behind it (None: all); what was drafted for them is still there to be sent again.

        Cancelled or not, run or not: of a target that was sent one only what it held before is certain.
        """
        position = self.stretches.index(first) if first is not None else 0
        gone = list(self.stretches)[position:]
        while len(self.stretches) > position:
            last = self.stretches.pop()
            self.held[last.peer_id] = min(self.held.get(last.peer_id, 0), last.base)
        return gone

    def lose(self, peer_id: str) -> list[Stretch]:
        """A target is gone with its cache; stretches given up with it."""
        self.held.pop(peer_id, None)
        self.prefilling.pop(peer_id, None)
        if peer_id in self.peer_ids:
            self.peer_ids.remove(peer_id)
        first = next((stretch for stretch in self.stretches if stretch.peer_id == peer_id), None)
        return [] if first is None else self.give_up(first)
