"""What happens to the scheduler (events) and what it wants done (commands). Values only; times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from cosine.core.errors import MeshError
from cosine.core.plan import DraftedTree, DraftPlan
from cosine.core.processors import UNKNOWN, Processor
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, TokenTree

TokenLogprob = tuple[float, tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Admission:
    """A validated request; see AdmittedRequest in scheduler.proto. `deadline` is on the scheduler's clock, 0: none.
    The higher `priority` is verified first."""

    request_id: str
    attempt: int
    gateway: str
    token_ids: tuple[int, ...]
    prompt_length: int
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop_token_ids: frozenset[int] = frozenset()
    strategy: str = ""
    deadline: float = 0.0
    traceparent: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class VerifierFacts:
    """A verifier that can be given work. A pass over `rows` rows took `base_ms + row_ms * rows` when it started, both 0
    where it has not measured that."""

    peer_id: str
    sessions_max: int = 64
    tree_nodes_max: int = 64
    tokens_max: int = 2048
    base_ms: float = 0.0
    row_ms: float = 0.0
    processor: Processor = UNKNOWN


@dataclass(frozen=True, slots=True)
class DrafterFacts:
    """A drafter that can be planned with; its times as in `VerifierFacts`. Drafters of one `model_id` are replicas."""

    peer_id: str
    base_ms: float = 0.0
    row_ms: float = 0.0
    model_id: str = ""
    processor: Processor = UNKNOWN


# -- events


@dataclass(frozen=True, slots=True)
class RequestCame:
    """A request was taken from the admission stream."""

    admission: Admission


@dataclass(frozen=True, slots=True)
class RequestLeft:
    """Its client is gone, or has all it wants."""

    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class GatewayDown:
    """A gateway is gone; it takes up its requests elsewhere."""

    gateway: str


@dataclass(frozen=True, slots=True)
class VerifierUp:
    """A verifier can be used; its caches are empty."""

    verifier: VerifierFacts


@dataclass(frozen=True, slots=True)
class VerifierDown:
    """A verifier is gone, with its caches and its batch."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class SchedulersChanged:
    """So many schedulers, this one included, now share the verifiers: each has its part of their sessions."""

    count: int


@dataclass(frozen=True, slots=True)
class FusionUp:
    """Fusion can be used; it knows no session."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class FusionDown:
    """Fusion is gone, with its plans."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class DraftersChanged:
    """Drafters that fusion can plan with, and what is known of them."""

    fusion: str
    drafters: tuple[str, ...]
    facts: tuple[DrafterFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeCame:
    """Fusion has drafted for one session of a plan. All of a plan's come in a row, then `PlanDone`."""

    round_id: int
    tree: DraftedTree


@dataclass(frozen=True, slots=True)
class PlanDone:
    """The last tree of a plan has come: whoever has one may be verified."""

    round_id: int


@dataclass(frozen=True, slots=True)
class SessionVerdict:
    """The target's word on one session. `missed`: it does not hold the base. `refused`: why it never will.

    Where the batch asked, `judged_nodes` are the tree's nodes at places of the committed path, and `agreements` how
    alike the target finds each one's token and the one committed there; see Verdict in verifier.proto.
    """

    session_id: str
    token_ids: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    cached_length: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    missed: bool = False
    refused: str = ""
    judged_nodes: tuple[int, ...] = ()
    agreements: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class VerdictCame:
    """A verifier has judged one session of a batch. All of a batch's come in a row, then `BatchDone`."""

    batch_id: int
    verdict: SessionVerdict
    forward_us: int = 0


@dataclass(frozen=True, slots=True)
class BatchDone:
    """The last verdict of a batch has come: the next plans and the next batch may go out."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; sent when a `WakeAt` asked for it."""


Event = (
    RequestCame
    | RequestLeft
    | GatewayDown
    | VerifierUp
    | VerifierDown
    | SchedulersChanged
    | FusionUp
    | FusionDown
    | DraftersChanged
    | TreeCame
    | PlanDone
    | VerdictCame
    | BatchDone
    | Tick
)

# -- commands


@dataclass(frozen=True, slots=True)
class SendPlan:
    """Ask fusion for trees."""

    fusion: str
    plan: DraftPlan


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One session of a batch; see VerifyItem in verifier.proto."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    tree: TokenTree = EMPTY
    sampling: Sampling = GREEDY
    prompt_length: int = 0
    prefill_only: bool = False
    judge: bool = False


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Ask a verifier for verdicts."""

    verifier: str
    batch_id: int
    items: tuple[BatchItem, ...]
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class CancelBatch:
    """Tell a verifier that nobody waits for a batch any more; it answers all the same."""

    verifier: str
    batch_id: int


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """A peer has not answered for too long: break the link to it, and try again."""

    peer_id: str


@dataclass(slots=True)
class Figures:
    """What speculation did for one request; see SpeculationFigures in types.proto."""

    strategy: str = ""
    round_count: int = 0
    drafted_token_count: int = 0
    accepted_token_count: int = 0
    drafters: list[str] = field(default_factory=list)
    draft_us: int = 0
    verify_us: int = 0
    drafter_forward_us: int = 0
    exchange_count: int = 0
    round_us: int = 0
    prefill_us: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell the gateway. `finish` is "", "stop_token" or "length"; `error` ends the request instead."""

    gateway: str
    request_id: str
    attempt: int
    offset: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str = ""
    figures: Figures | None = None
    error: MeshError | None = None


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Free what a verifier (or fusion, and through it the drafters) holds for a session."""

    peer_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick at this time; replaces an earlier wish."""

    time: float


Command = SendPlan | SendBatch | CancelBatch | ResetPeer | Progress | CloseSession | WakeAt
