"""A drafter that answers from a recording: the trees a real one would grow, and the forward passes that would take.

Its passes and its cache are those of `cosine.engine.drafting`: what the drafter guessed itself and was right about need
not be run again. With `run_ahead` it is a drafter that uses its idle time, see `cosine.core.running_ahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cosine.core.plan import DraftItem, Guess
from cosine.core.running_ahead import Children, Expansion, Foresight
from cosine.core.sampling import Sampling
from cosine.sim.device import Run, Unasked
from cosine.sim.growth import Growth, begun
from cosine.sim.library import Child, Context, Library, key_after
from cosine.sim.profile import DrafterDevice

GRAINS = 16  # a pass that is run ahead can be given up between layers; so many are assumed, as a paced engine has


class Drafter:
    """One drafter: a specialist of the library on a device, with a cache per session. Without `run_ahead` its
    `foresight` never hears of an answer, and so foresees nothing."""

    def __init__(self, library: Library, specialist: int, device: DrafterDevice, run_ahead: bool = False) -> None:
        self.drafted_count = 0
        self._library = library
        self._specialist = specialist
        self._device = device
        self._contexts: dict[str, Context] = {}
        self._run_ahead = run_ahead
        self.foresight = Foresight()

    def compute(self, items: Sequence[DraftItem]) -> Run[Guess]:
        """Answers steps. Their passes run together, so that a run takes as many as its deepest step."""
        self.foresight.begin(items)
        newcomer = any(item.base_length == 0 and item.session_id not in self._contexts for item in items)
        growths = [self._grow(item, newcomer) for item in items]
        trees = [None if growth is None else growth.tree() for growth in growths]
        if self._run_ahead:
            self.foresight.end(zip(items, trees, strict=True), self._cached)
        guesses = [Guess(item.session_id, tree, tree is None) for item, tree in zip(items, trees, strict=True)]
        passes = self._together([growth for growth in growths if growth is not None])
        seconds = sum(self._device.forward_ms(rows, cached) for rows, cached in passes) / 1000
        return Run(guesses, seconds, seconds / max(1, len(passes)), stand=True)

    @staticmethod
    def give_up(items: Sequence[DraftItem]) -> list[Guess]:
        """What is answered to a step that was cancelled."""
        return [Guess(item.session_id, None) for item in items]

    def close(self, session_ids: Sequence[str]) -> None:
        """Frees sessions."""
        self.foresight.close(session_ids)
        for session_id in session_ids:
            self._contexts.pop(session_id, None)

    def idle(self) -> Unasked[DraftItem] | None:
        """The pass that it would run now, unasked."""
        wanted = self.foresight.next_pass(self._cached)
        if not wanted:
            return None
        rows, cached = sum(len(part.token_ids) for part in wanted), sum(part.base_length for part in wanted)
        seconds = self._device.forward_ms(rows, cached) / 1000
        return Unasked(seconds, seconds / GRAINS, self.foresight.foreseen, partial(self._end_unasked, wanted))

    def _end_unasked(self, wanted: Sequence[Expansion], finished: bool) -> None:
        """A pass that was run ahead has ended, or was given up on its way."""
        for part in wanted:
            self._contexts[part.session_id].append(part.base_length, part.token_ids if finished else ())
        if finished:
            self.foresight.learn({part.session_id: self._found(part) for part in wanted})

    def _found(self, expansion: Expansion) -> Children:
        """The children behind all that the cache holds of an expansion's session."""
        context, rule = self._contexts[expansion.session_id], expansion.rule
        kids = self._children(rule.sampling, context, rule.position, context.key)[: expansion.width]
        return [token for token, _ in kids], [sure for _, sure in kids]

    @staticmethod
    def _together(growths: Sequence[Growth]) -> list[tuple[int, int]]:
        """Rows and cached tokens of the passes of a run; those that nobody needs are left out."""
        passes = [(0, 0)] * max((len(growth.passes) for growth in growths), default=0)
        for growth in growths:
            for number, (rows, cached) in enumerate(growth.passes):
                passes[number] = passes[number][0] + rows, passes[number][1] + cached
        return [(rows, cached) for rows, cached in passes if rows]

    def _grow(self, item: DraftItem, newcomer: bool) -> Growth | None:
        """The tree of one step; None where the cache lacks the step's base. `newcomer` says that a session comes anew
        with this run: then nothing of its first pass is known ahead."""
        held = self._held(item.session_id)
        if item.base_length > len(held):
            return None
        context = self._contexts.get(item.session_id)
        if context is None:
            context = self._contexts[item.session_id] = Context(self._library.script_of(item.token_ids))
        cached = context.token_ids[:]
        context.append(item.base_length, item.token_ids)
        growth = begun(context, item, held)
        for number in range(item.step_count):
            if not growth.goes_on(number):
                break
            self._run(growth, cached, newcomer and number == 0)
            growth.turn_to(self._expand(context, growth))
        if self.foresight.rides(item.session_id):
            context.append(item.base_length, cached[item.base_length :])
        else:
            context.append(growth.length, [growth.token_ids[node] for node in growth.held])
        return growth

    def _cached(self, session_id: str) -> Sequence[int]:
        """Tokens in the cache; they change with it."""
        context = self._contexts.get(session_id)
        return () if context is None else context.token_ids

    def _held(self, session_id: str) -> list[int]:
        """Tokens in the cache, as steps see it."""
        return list(self.foresight.shown(session_id, self._cached(session_id)))

    def _run(self, growth: Growth, cached: Sequence[int], newcomer: bool) -> None:
        """The next pass of a growth, unless its result is known; `cached` is what the cache holds of the session."""
        part = growth.part()
        if self.foresight.answer(part, cached, bare=not newcomer and not growth.below) is None:
            growth.run(part)
        else:
            growth.skip()

    def _expand(self, context: Context, growth: Growth) -> list[int]:
        """Gives each node of the frontier its children; those."""
        grown: list[int] = []
        for parent in growth.frontier:
            length, key = growth.place(parent)
            children = self._children(growth.item.sampling, context, length, key)[: growth.item.width]
            for rank, (token, sure) in enumerate(children):
                if rank and sure < growth.item.sibling_min:
                    break
                grown.append(growth.add(parent, token, sure, key_after(context.script, length, key, token)))
        self.drafted_count += len(grown)
        return grown

    def _children(self, sampling: Sampling, context: Context, length: int, key: int) -> list[Child]:
        greedily = sampling.temperature == 0.0
        return self._library.children(self._specialist, greedily, context.script, length, key)
