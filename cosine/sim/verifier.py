"""A verifier whose target says what it said in the recording: verdicts on trees, and the forward pass they take.

It follows `cosine.engine.verifying`. What it is given as context must be the recorded text, since nothing else can have
been committed; only where requests are verified ahead of their verdicts may it be a guess, and then it picks by hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosine.core.acceptance import walk
from cosine.core.events import BatchItem, SessionVerdict
from cosine.core.tree import EMPTY, ROOT, TokenTree
from cosine.sim.device import Run
from cosine.sim.library import Context, Library, Script, key_after
from cosine.sim.profile import VerifierDevice

GRAINS = 32  # a pass can be stopped between layers; so many are assumed


class WrongText(AssertionError):
    """Something else than the recorded text was about to be committed, or taken for committed."""


class Verifier:
    """One verifier with a cache per session. `may_guess` allows context that is not committed yet."""

    def __init__(self, library: Library, device: VerifierDevice, tree_nodes_max: int, may_guess: bool) -> None:
        self.verified_count = 0
        self._library = library
        self._device = device
        self._tree_nodes_max = tree_nodes_max
        self._may_guess = may_guess
        self._contexts: dict[str, Context] = {}

    def compute(self, items: Sequence[BatchItem]) -> Run[SessionVerdict]:
        """Verdicts from one forward pass."""
        rows = sum(len(item.token_ids) + len(item.tree) for item in items)
        cached = sum(item.base_length for item in items)
        seconds = self._device.forward_ms(rows, cached) / 1000
        return Run([self._judge(item) for item in items], seconds, seconds / GRAINS)

    def give_up(self, items: Sequence[BatchItem]) -> list[SessionVerdict]:
        """What is answered to a batch that was cancelled. Its sessions fall back to their bases all the same: what
        the scheduler sends next counts on the cache not to hold anything older beyond them."""
        for item in items:
            context = self._contexts.get(item.session_id)
            if context is not None:
                context.append(item.base_length, ())
        return [SessionVerdict(item.session_id, missed=True, cached_length=self._held(item)) for item in items]

    def close(self, session_ids: Sequence[str]) -> None:
        """Frees sessions."""
        for session_id in session_ids:
            self._contexts.pop(session_id, None)

    def _held(self, item: BatchItem) -> int:
        context = self._contexts.get(item.session_id)
        return 0 if context is None else len(context.token_ids)

    def _judge(self, item: BatchItem) -> SessionVerdict:
        held = self._held(item)
        if item.base_length > held:
            return SessionVerdict(item.session_id, missed=True, cached_length=held)
        context = self._contexts.get(item.session_id)
        if context is None:
            context = self._contexts[item.session_id] = Context(self._library.script_of(item.token_ids))
        context.append(item.base_length, item.token_ids)
        length, key = len(context.token_ids), context.key
        if key and not self._may_guess:
            raise WrongText(f"session {item.session_id}: the context of {length} tokens is not the recorded text")
        if item.prefill_only:
            return SessionVerdict(item.session_id, cached_length=length)
        fits = len(item.tree) <= self._tree_nodes_max
        tree = item.tree if fits else EMPTY
        self.verified_count += len(tree)
        taken = walk(tree, _Picker(self._library, context, length, key))
        context.append(length, [tree.token_ids[node] for node in taken.nodes])
        verdict = SessionVerdict(item.session_id, taken.token_ids, taken.nodes, len(context.token_ids))
        return self._with_agreements(verdict, tree, context.script, length) if item.judge else verdict

    def _with_agreements(self, verdict: SessionVerdict, tree: TokenTree, script: Script, length: int) -> SessionVerdict:
        """Adds how alike the drafted and the committed token are at every place of the committed path."""
        places = dict(zip((ROOT, *verdict.nodes), enumerate(verdict.token_ids), strict=True))
        judged = [(node, places[parent]) for node, parent in enumerate(tree.parents) if parent in places]
        agreements = [
            self._library.likeness(script, length + depth, tree.token_ids[node], token)
            for node, (depth, token) in judged
        ]
        return replace(verdict, judged_nodes=tuple(node for node, _ in judged), agreements=tuple(agreements))


class _Picker:
    """The target's picks along the walk, each behind the one before."""

    def __init__(self, library: Library, context: Context, length: int, key: int) -> None:
        self._library, self._script = library, context.script
        self._length, self._key = length, key

    def __call__(self, node: int, path: tuple[int, ...]) -> int:
        if node != ROOT:
            self._key = key_after(self._script, self._length, self._key, path[-1])
            self._length += 1
        return self._library.pick(self._script, self._length, self._key)
