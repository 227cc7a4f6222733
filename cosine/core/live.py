"""One request while the scheduler holds it: its tokens, where it is in its round, and what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from cosine.core import speculation
from cosine.core.bandit import Bandit
from cosine.core.events import Admission, BatchItem, Figures, Progress, SessionVerdict
from cosine.core.goodput import DEPTH_SLACK, Offer
from cosine.core.knowledge import Priors
from cosine.core.pace import HitRate, Pace
from cosine.core.plan import PlanItem
from cosine.core.routing import Route, judge
from cosine.core.strategy import Choice, Strategy
from cosine.core.stream import Stream, Stretch
from cosine.core.tree import EMPTY, TokenTree, chain, depths


class Phase(Enum):
    """Where a request is in its round."""

    SEATLESS = "waits for a verifier"
    READY = "waits for its verifier's next batch"
    DRAFTING = "waits for its tree"
    VERIFYING = "waits for its verdict"
    STREAMING = "drafts and is verified at the same time"


@dataclass(slots=True, eq=False)
class Live:
    """A request.

    `cached` counts the tokens its verifier holds, `planned` those that fusion holds; `turn` counts the requests that
    sat down at the verifier before it, `passed_over` the batches that went without it since `ready_at`; `rows` is what
    it then asks of one, and `worth` the tokens that this should bring. Its last plan had drafters read its whole
    context or not (`read_first`), had it wait for them since nothing was left to start from (`late`), or nobody
    (`rested`), after which its verdict may have been on nothing (`bare`). `opening_id` is the plan, if any, with which
    drafters began when it sat down.
    """

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
    opening_id: int = 0
    models: tuple[str, ...] = ()
    drafters: tuple[str, ...] = ()
    tree: TokenTree = EMPTY
    round_start: float = 0.0
    draft_ms: float = 0.0
    promised: float = 0.0
    depth: int = 0
    node_budget: int = 1
    read_first: bool = False
    late: bool = False
    bare: bool = False
    rested: bool = False
    ready_at: float = 0.0
    rows: int = 0
    worth: float = 0.0
    hit_rate: HitRate = field(default_factory=HitRate)
    bandit: Bandit = field(default_factory=Bandit)
    priors: Priors | None = None
    offer: Offer | None = None
    stream: Stream | None = None
    turn: int = 0
    passed_over: int = 0
    figures: Figures = field(default_factory=Figures)

    @property
    def sequence(self) -> list[int]:
        """Committed tokens, then those that are drafted and unverified (of streamed requests)."""
        return self.tokens if self.stream is None else self.tokens + self.stream.speculated

    @property
    def left(self) -> int:
        """How many tokens may still be committed."""
        return self.admission.max_new_tokens - self.output_count

    @property
    def output_count(self) -> int:
        return len(self.tokens) - self.admission.prompt_length

    @property
    def started(self) -> bool:
        """True where the verifier holds all but the last token, so that a verdict ends a round and not a prefill."""
        return self.round_start > 0.0 and self.cached == len(self.tokens) - 1

    @property
    def unread(self) -> bool:
        """True where drafters have its whole context to read for its next plan, or may be reading it now."""
        return not self.planned or (self.opening_id > 0 and not self.round_id)

    def finish_reason(self) -> str:
        """Why no further token is wanted, or ""."""
        if self.output_count > 0 and self.tokens[-1] in self.admission.stop_token_ids:
            return "stop_token"
        return "length" if self.output_count >= self.admission.max_new_tokens else ""

    def progress(self, token_ids: tuple[int, ...] = (), **more: Any) -> Progress:
        """What the gateway is told, behind the tokens it has."""
        admission = self.admission
        offset = self.output_count - len(token_ids)
        return Progress(admission.gateway, admission.request_id, admission.attempt, offset, token_ids, **more)

    def commit(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Appends the target's tokens up to the first that ends the text; returns what was appended."""
        committed, stops = tuple(token_ids[: self.left]), self.admission.stop_token_ids
        if not stops.isdisjoint(committed):
            first = next(place for place, token in enumerate(committed) if token in stops)
            committed = committed[: first + 1]
        self.tokens += committed
        return committed

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
            judge=bool(tree) and self.strategy.weighs_tokens,
        )

    def stretch_need(self, peer_id: str, prefill_chunk: int) -> int:
        """Rows that the context before the next stretch needs at a target."""
        assert self.stream is not None
        start = self.stream.next_start(len(self.tokens))
        return min(prefill_chunk, start - min(self.stream.held.get(peer_id, 0), start - 1))

    def stretch_item(self, peer_id: str, prefill_chunk: int, count_max: int) -> tuple[BatchItem, Stretch | None]:
        """What a target is asked next of a streamed request: a part of the context (None), or a stretch."""
        stream, admission, sequence = self.stream, self.admission, self.sequence
        assert stream is not None
        start = stream.next_start(len(self.tokens))
        base = min(stream.held.get(peer_id, 0), start - 1)
        rest = tuple(sequence[base:start])
        if len(rest) > prefill_chunk:
            stream.prefilling[peer_id] = base + prefill_chunk
            return BatchItem(self.session_id, base, rest[:prefill_chunk], prefill_only=True), None
        stretch = stream.next_stretch(peer_id, len(self.tokens), count_max)
        tree = chain(sequence[start : start + stretch.count])
        item = BatchItem(
            self.session_id,
            base,
            rest,
            TokenTree(tree.token_ids, tree.parents),
            admission.sampling,
            admission.prompt_length,
        )
        return item, stretch

    def plan_item(self, width: int, beam: int, value_min: float) -> PlanItem:
        """What fusion is asked next."""
        strategy, sequence = self.strategy, self.sequence
        left = self.left - (len(sequence) - len(self.tokens))
        sampling = self.admission.sampling
        depth = min(strategy.depth, self.depth + DEPTH_SLACK) if strategy.adaptive else self.depth
        return PlanItem(
            self.session_id,
            self.planned,
            tuple(sequence[self.planned :]),
            self.drafters,
            max(1, min(depth, left - 1)),
            width,
            beam,
            self.node_budget,
            max(value_min, strategy.value_min),
            sampling if strategy.shared_noise else replace(sampling, temperature=0.0),
        )

    def learn(self, verdict: SessionVerdict, tree: TokenTree, pace: Pace, round_ms: float) -> None:
        """What a round says of the drafters, of this request, and of the mesh's predictions."""
        count = len(verdict.token_ids)
        if self.strategy.choice is Choice.BANDIT and self.models and self.depth and not self.read_first:
            self.bandit.note(self.models[0], count, round_ms / 1000)
        depth = max(depths(tree), default=0)
        self.bare = not tree and self.rested
        if tree:
            self.route.note(judge(self.strategy.score, self.models, tree, verdict, depth=depth), count)
            if self.priors is not None:
                self.priors.note_hit_rate(len(verdict.nodes), depth)
        in_vain = not self.tree and self.draft_ms > 0.0
        speculation.learn(pace, self.hit_rate, self.offer, self.promised, len(verdict.nodes), depth, self.late, in_vain)

    def note_drafted(self, tree: TokenTree) -> None:
        """Adds a tree to the figures, whatever becomes of it."""
        if tree:
            self.figures.drafted_token_count += len(tree)
            self.figures.drafters += [name for name in self.drafters if name not in self.figures.drafters]

    def note_round(self, nodes: Sequence[int], draft_us: float, forward_us: int, round_ms: float) -> None:
        """Adds one verdict to the figures; `round_ms` is 0 where it ended a prefill."""
        figures = self.figures
        figures.round_count += 1
        figures.accepted_token_count += len(nodes)
        figures.draft_us += int(draft_us)
        if round_ms:
            figures.verify_us += forward_us
        else:
            figures.prefill_us += forward_us
        figures.round_us += int(round_ms * 1000)
