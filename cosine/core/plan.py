"""What the scheduler asks of fusion, and fusion of drafters: plans, steps and their results, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, TokenTree


class Cooperation(Enum):
    """How drafters work together; see Cooperation in fusion.proto."""

    SINGLE = 1
    MERGED = 2
    FUSED = 3


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One session of a plan; bit i of a node's proposers is `drafters[i]`."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    drafters: tuple[str, ...]
    depth: int
    width: int = 1
    beam: int = 1
    node_budget: int = 16
    value_min: float = 0.0
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """What to draft; all sessions of a plan are stepped together. Times in milliseconds."""

    round_id: int
    cooperation: Cooperation
    items: tuple[PlanItem, ...]
    fusion_interval: int = 1
    deadline_ms: float = 250.0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class DraftedTree:
    """The tree of one session. `missed` says that fusion does not hold the session's first `base_length` tokens."""

    session_id: str
    base_length: int
    tree: TokenTree = EMPTY
    missed: bool = False
    exchange_count: int = 0
    forward_us: int = 0


@dataclass(frozen=True, slots=True)
class StepItem:
    """One session of a step; see DraftItem in drafter.proto."""

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    step_count: int
    width: int
    beam: int
    value_min: float
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Step:
    """Command: send this to a drafter."""

    drafter: str
    step_id: int
    items: tuple[StepItem, ...]
    round_id: int


@dataclass(frozen=True, slots=True)
class Trees:
    """Command: the plan is done."""

    round_id: int
    results: tuple[DraftedTree, ...]


@dataclass(frozen=True, slots=True)
class Guess:
    """A drafter's answer for one session: its tree, or None where it could not."""

    session_id: str
    tree: TokenTree | None
    missed: bool = False
