"""A drafter that answers from a recording: the trees a real one would grow, and the forward passes that would take.

Its passes and its cache are those of `cosine.engine.drafting`: what the drafter guessed itself and was right about need
not be run again. With `run_ahead` it is a drafter that uses its idle time, see `running_ahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cosine.core.plan import Guess, StepItem
from cosine.sim.device import Run, Unasked
from cosine.sim.growth import Growth, begun
from cosine.sim.library import Child, Context, Library, key_after
from cosine.sim.profile import DrafterDevice
from cosine.sim.running_ahead import RunningAhead

GRAINS = 16  # a pass that is run ahead can be given up between layers; so many are assumed, as a paced engine has


class Drafter:
    """One drafter: a specialist of the library on a device, with a cache per session. `ahead` is None for one that does
    nothing unasked."""

    def __init__(self, library: Library, specialist: int, device: DrafterDevice, run_ahead: bool = False) -> None:
        self.drafted_count = 0
        self._library = library
        self._specialist = specialist
        self._device = device
        self._contexts: dict[str, Context] = {}
        self.ahead = RunningAhead(self._contexts, self._best_child) if run_ahead else None

    def compute(self, items: Sequence[StepItem]) -> Run[Guess]:
        """Answers steps. Their passes run together, so that a run takes as many as its deepest step."""
        if self.ahead is not None:
            self.ahead.step_begins(items)
        newcomer = any(item.base_length == 0 and item.session_id not in self._contexts for item in items)
        grown = [(item, self._grow(item, newcomer)) for item in items]
        if self.ahead is not None:
            self.ahead.step_ends(grown)
        guesses = [_guess(item, growth) for item, growth in grown]
        passes = self._together([growth for _, growth in grown if growth is not None])
        seconds = sum(self._device.forward_ms(rows, cached) for rows, cached in passes) / 1000
        return Run(guesses, seconds, seconds / max(1, len(passes)), stand=True)

    @staticmethod
    def give_up(items: Sequence[StepItem]) -> list[Guess]:
        """What is answered to a step that was cancelled."""
        return [Guess(item.session_id, None) for item in items]

    def close(self, session_ids: Sequence[str]) -> None:
        """Frees sessions."""
        for session_id in session_ids:
            self._contexts.pop(session_id, None)
            if self.ahead is not None:
                self.ahead.close(session_id)

    def idle(self) -> Unasked[StepItem] | None:
        """The pass that it would run now, unasked."""
        parts = self.ahead.next_pass() if self.ahead is not None else []
        if self.ahead is None or not parts:
            return None
        rows, cached = sum(len(part.token_ids) for part in parts), sum(part.base_length for part in parts)
        seconds = self._device.forward_ms(rows, cached) / 1000
        return Unasked(seconds, seconds / GRAINS, self.ahead.foreseen, partial(self.ahead.end_pass, parts))

    @staticmethod
    def _together(growths: Sequence[Growth]) -> list[tuple[int, int]]:
        """Rows and cached tokens of the passes of a run; those that nobody needs are left out."""
        passes = [(0, 0)] * max((len(growth.passes) for growth in growths), default=0)
        for growth in growths:
            for number, (rows, cached) in enumerate(growth.passes):
                passes[number] = passes[number][0] + rows, passes[number][1] + cached
        return [(rows, cached) for rows, cached in passes if rows]

    def _grow(self, item: StepItem, newcomer: bool) -> Growth | None:
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
        if self.ahead is not None and self.ahead.rides(item.session_id):
            context.append(item.base_length, cached[item.base_length :])
        else:
            context.append(growth.length, [growth.token_ids[node] for node in growth.held])
        return growth

    def _held(self, session_id: str) -> list[int]:
        """Tokens in the cache, as steps see it."""
        if self.ahead is not None:
            return self.ahead.held(session_id)
        context = self._contexts.get(session_id)
        return [] if context is None else context.token_ids[:]

    def _run(self, growth: Growth, cached: Sequence[int], newcomer: bool) -> None:
        """The next pass of a growth, unless its result is known; `cached` is what the cache holds of the session."""
        part = growth.part()
        bare = not newcomer and not growth.below
        if self.ahead is not None and self.ahead.skips(part, cached, bare):
            growth.skip()
        else:
            growth.run(part)

    def _expand(self, context: Context, growth: Growth) -> list[int]:
        """Gives each node of the frontier its children; those."""
        grown: list[int] = []
        for parent in growth.frontier:
            length, key = growth.place(parent)
            for token, sure in self._children(growth.item, context, length, key)[: growth.item.width]:
                grown.append(growth.add(parent, token, sure, key_after(context.script, length, key, token)))
        self.drafted_count += len(grown)
        return grown

    def _children(self, item: StepItem, context: Context, length: int, key: int) -> list[Child]:
        greedily = item.sampling.temperature == 0.0
        return self._library.children(self._specialist, greedily, context.script, length, key)

    def _best_child(self, item: StepItem, context: Context, length: int, key: int) -> int | None:
        return next((token for token, _ in self._children(item, context, length, key)), None)


def _guess(item: StepItem, growth: Growth | None) -> Guess:
    return Guess(item.session_id, None if growth is None else growth.tree(), growth is None)
