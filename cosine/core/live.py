"""One request while the scheduler holds it: its tokens, where it is in its round, and what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from cosine.core.events import Admission, BatchItem, Figures
from cosine.core.plan import PlanItem
from cosine.core.routing import Route
from cosine.core.speculation import DEPTH_SLACK, HitRate
from cosine.core.strategy import Strategy
from cosine.core.tree import EMPTY, TokenTree


class Phase(Enum):
    """Where a request is in its round."""

    SEATLESS = "waits for a verifier"
    READY = "waits for its verifier's next batch"
    DRAFTING = "waits for its tree"
    VERIFYING = "waits for its verdict"


@dataclass(slots=True, eq=False)
class Live:
    """A request. `cached` counts the tokens its verifier holds, `planned` those that fusion holds."""

    admission: Admission
    session_id: str
    strategy: Strategy
    route: Route
    tokens: list[int]
    since: float
    phase: Phase = Phase.SEATLESS
    verifier: str = ""
    cached: int = 0
    fusion: str = ""
    planned: int = 0
    round_id: int = 0
    drafters: tuple[str, ...] = ()
    tree: TokenTree = EMPTY
    round_start: float = 0.0
    draft_ms: float = 0.0
    promised: float = 0.0
    depth: int = 0
    hit_rate: HitRate = field(default_factory=HitRate)
    figures: Figures = field(default_factory=Figures)

    @property
    def output_count(self) -> int:
        return len(self.tokens) - self.admission.prompt_length

    @property
    def started(self) -> bool:
        """True where the verifier holds all but the last token, so that a verdict ends a round and not a prefill."""
        return self.round_start > 0.0 and self.cached == len(self.tokens) - 1

    def finish_reason(self) -> str:
        """Why no further token is wanted, or ""."""
        if self.output_count > 0 and self.tokens[-1] in self.admission.stop_token_ids:
            return "stop_token"
        return "length" if self.output_count >= self.admission.max_new_tokens else ""

    def commit(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Appends the target's tokens up to the first that ends the text; returns what was appended."""
        before = len(self.tokens)
        for token in token_ids:
            self.tokens.append(token)
            if self.finish_reason():
                break
        return tuple(self.tokens[before:])

    def batch_item(self, tree: TokenTree, prefill_chunk: int) -> BatchItem:
        """What the verifier is asked next: a part of the context, or the rest of it with a tree."""
        admission = self.admission
        rest = tuple(self.tokens[self.cached :])
        if len(rest) > prefill_chunk:
            return BatchItem(self.session_id, self.cached, rest[:prefill_chunk], prefill_only=True)
        return BatchItem(
            self.session_id,
            self.cached,
            rest,
            TokenTree(tree.token_ids, tree.parents),
            admission.sampling,
            admission.prompt_length,
        )

    def plan_item(self, beam: int, value_min: float) -> PlanItem:
        """What fusion is asked next."""
        strategy = self.strategy
        left = self.admission.max_new_tokens - self.output_count
        depth = min(strategy.depth, self.depth + DEPTH_SLACK) if strategy.adaptive else self.depth
        return PlanItem(
            self.session_id,
            self.planned,
            tuple(self.tokens[self.planned :]),
            self.drafters,
            max(1, min(depth, left - 1)),
            strategy.width,
            beam,
            strategy.node_budget,
            value_min,
            self.admission.sampling,
        )

    def note_round(
        self, nodes: Sequence[int], tree_size: int, draft_us: float, forward_us: int, round_ms: float
    ) -> None:
        """Adds one verdict to the figures; `round_ms` is 0 where it ended a prefill."""
        figures = self.figures
        figures.round_count += 1
        figures.drafted_token_count += tree_size
        figures.accepted_token_count += len(nodes)
        figures.draft_us += int(draft_us)
        if round_ms:
            figures.verify_us += forward_us
        else:
            figures.prefill_us += forward_us
        figures.round_us += int(round_ms * 1000)
        if tree_size:
            figures.drafters += [name for name in self.drafters if name not in figures.drafters]
