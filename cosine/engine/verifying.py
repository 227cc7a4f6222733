"""From trees to verdicts on any engine: check, one forward pass, walk along the target's picks, keep the path.

One item that cannot be done (a cache miss, a token outside the vocabulary, a rule out of range) never disturbs the
others of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np

from cosine.core.acceptance import Walk, walk
from cosine.core.errors import BadRequest
from cosine.core.picking import RowRule, log_softmax, penalize, pick
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.sampling import validate as validate_sampling
from cosine.core.tree import EMPTY, ROOT, TokenTree, depths, validate
from cosine.engine.base import Engine, Logits, Segment, Stopped


class Status(Enum):
    """Whether a worker could do what an item asked."""

    OK = 1
    CACHE_MISS = 2
    REFUSED = 3
    CANCELLED = 4


@dataclass(frozen=True, slots=True)
class VerifyItem:
    """One session of a batch; see VerifyItem in verifier.proto."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    tree: TokenTree = EMPTY
    sampling: Sampling = GREEDY
    prompt_length: int = 0
    prefill_only: bool = False
    judge: bool = False


TokenLogprob = tuple[float, list[int], list[float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the target says of one item; see Verdict in verifier.proto."""

    session_id: str
    status: Status
    token_ids: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    cached_length: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: str = ""
    judged_nodes: tuple[int, ...] = ()
    agreements: tuple[float, ...] = ()


def verify(engine: Engine, items: Sequence[VerifyItem], stop: Callable[[], bool] | None = None) -> list[Verdict]:
    """Verdicts in the order of the items, from one forward pass. Sessions must differ. Where `stop` says true before
    the pass has ended, the items that it ran are `cancelled`."""
    fitted = [_fit(engine, item) for item in items]
    checked = [check(engine, item) for item in fitted]
    able = [item for item, problem in zip(fitted, checked, strict=True) if problem is None]
    done = iter(_verify_able(engine, able, stop) if able else ())
    return [next(done) if problem is None else problem for problem in checked]


def cancelled(item: VerifyItem) -> Verdict:
    """The verdict on an item that nobody wants any more; what its `base_length` names is still held."""
    return Verdict(item.session_id, Status.CANCELLED, cached_length=item.base_length)


class SessionItem(Protocol):
    """One session's part of a work message, to a verifier or a drafter."""

    @property
    def session_id(self) -> str: ...

    @property
    def base_length(self) -> int: ...

    @property
    def token_ids(self) -> tuple[int, ...]: ...

    @property
    def tree(self) -> TokenTree: ...

    @property
    def sampling(self) -> Sampling: ...


def check(engine: Engine, item: SessionItem) -> Verdict | None:
    """The verdict on an item that cannot be run, or None for one that can."""
    held = len(engine.tokens(item.session_id))
    if item.base_length > held:
        return Verdict(item.session_id, Status.CACHE_MISS, cached_length=held)
    card = engine.card
    try:
        validate(item.tree, card.vocab_size)
        validate_sampling(item.sampling, card.vocab_size)
    except BadRequest as error:
        return refused(item, error.message)
    if not item.token_ids or any(not 0 <= token < card.vocab_size for token in item.token_ids):
        return refused(item, f"token ids must be given and lie in 0..{card.vocab_size - 1}")
    if item.base_length + len(item.token_ids) > card.tokens_max:
        return refused(item, f"a session holds at most {card.tokens_max} tokens")
    return None


def refused(item: SessionItem, reason: str) -> Verdict:
    """The verdict on an item that breaks a bound."""
    return Verdict(item.session_id, Status.REFUSED, reason=reason)


def _fit(engine: Engine, item: VerifyItem) -> VerifyItem:
    """Drops a tree that has no room behind its session: speculation is never in the way."""
    room = engine.card.tokens_max - item.base_length - len(item.token_ids)
    return item if len(item.tree) <= min(room, engine.limits.tree_nodes_max) else replace(item, tree=EMPTY)


def _verify_able(engine: Engine, items: Sequence[VerifyItem], stop: Callable[[], bool] | None) -> list[Verdict]:
    segments = [Segment(item.session_id, item.base_length, item.token_ids, item.tree) for item in items]
    try:
        logits = engine.forward(segments, stop)
    except Stopped:
        return [cancelled(item) for item in items]
    rules = [rule for item in items for rule in _rules(item)]
    picks = logits.picks(rules)
    verdicts = []
    first_row = 0
    for item in items:
        verdicts.append(_verdict(engine, logits, item, picks, first_row))
        first_row += 1 + len(item.tree)
    return _judged(engine, items, verdicts)


def _judged(engine: Engine, items: Sequence[VerifyItem], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts with the agreements that items asked for, from one look-up for all of them."""
    found = [_rivals(item.tree, verdict) if item.judge else {} for item, verdict in zip(items, verdicts, strict=True)]
    drafted = [item.tree.token_ids[node] for item, rivals in zip(items, found, strict=True) for node in rivals]
    if not drafted:
        return list(verdicts)
    agreements = iter(engine.agreement(drafted, [token for rivals in found for token in rivals.values()]))
    return [
        replace(verdict, judged_nodes=tuple(rivals), agreements=tuple(next(agreements) for _ in rivals))
        for verdict, rivals in zip(verdicts, found, strict=True)
    ]


def _rivals(tree: TokenTree, verdict: Verdict) -> dict[int, int]:
    """Per node at a place of the committed path, the token committed there."""
    committed = dict(zip((ROOT, *verdict.nodes), verdict.token_ids, strict=True)) if verdict.token_ids else {}
    return {node: committed[parent] for node, parent in enumerate(tree.parents) if parent in committed}


def _rules(item: VerifyItem) -> list[RowRule]:
    """One rule per row; rows that need the path's tokens are picked again while walking."""
    position = item.base_length + len(item.token_ids)
    sampling = GREEDY if item.sampling.path_dependent or item.prefill_only else item.sampling
    return [RowRule(sampling, position + depth) for depth in (0, *depths(item.tree))]


def _verdict(engine: Engine, logits: Logits, item: VerifyItem, picks: Sequence[int], first_row: int) -> Verdict:
    if item.prefill_only:
        engine.keep(item.session_id, ())
        return Verdict(item.session_id, Status.OK, cached_length=len(engine.tokens(item.session_id)))
    if item.sampling.path_dependent:
        taken = _walk_with_rules(engine, logits, item, first_row)
    else:
        taken = walk(item.tree, lambda node, _: picks[first_row + 1 + node])
    rows = [first_row + 1 + node for node in (ROOT, *taken.nodes)]
    logprobs = _logprobs(logits, rows, taken.token_ids, item.sampling.logprobs)
    engine.keep(item.session_id, taken.nodes)
    held = len(engine.tokens(item.session_id))
    return Verdict(item.session_id, Status.OK, taken.token_ids, taken.nodes, held, logprobs)


def _walk_with_rules(engine: Engine, logits: Logits, item: VerifyItem, first_row: int) -> Walk:
    context = list(engine.tokens(item.session_id))
    prompt, output = context[: item.prompt_length], context[item.prompt_length :]

    def pick_at(node: int, path: tuple[int, ...]) -> int:
        row = penalize(logits.row(first_row + 1 + node), item.sampling, prompt, [*output, *path])
        return pick(row, RowRule(item.sampling, len(context) + len(path)))

    return walk(item.tree, pick_at)


def _logprobs(
    logits: Logits, rows: Sequence[int], token_ids: Sequence[int], wanted: int | None
) -> tuple[TokenLogprob, ...]:
    if wanted is None:
        return ()
    result = []
    for row, token in zip(rows, token_ids, strict=True):
        values = log_softmax(logits.row(row))
        best = np.lexsort((np.arange(values.shape[0]), -values))[:wanted]
        result.append((float(values[token]), [int(i) for i in best], [float(values[i]) for i in best]))
    return tuple(result)
