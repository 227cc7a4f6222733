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
    VOTED = 4


class Reading(Enum):
    """What a drafter whose own token lost does next under FUSED: it goes on from the fused token (REPLACE), or from
    both (FORK); see Reading in fusion.proto."""

    REPLACE = 1
    FORK = 2


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
    """What to draft; all sessions of a plan are stepped together. Times in milliseconds.

    `lookahead` is how many further steps drafters go on after the trees are delivered, until the next plan for the
    session says what became of them. Without `calibrated`, raw confidences are compared. With `opinions` every tree
    tells how sure each of a node's proposers was of it.
    """

    round_id: int
    cooperation: Cooperation
    items: tuple[PlanItem, ...]
    fusion_interval: int = 1
    deadline_ms: float = 250.0
    traceparent: str = ""
    reading: Reading = Reading.REPLACE
    lookahead: int = 0
    calibrated: bool = True
    opinions: bool = False

    @property
    def interleaved(self) -> bool:
        """True where drafters meet every `fusion_interval` tokens; else each drafts on alone to the full depth."""
        return self.cooperation is Cooperation.FUSED


@dataclass(frozen=True, slots=True)
class DraftedTree:
    """The tree of one session. `missed` says that fusion does not hold the session's first `base_length` tokens;
    `kept_depth` is how deep a tree the last verdict had left, so that only the rest had to be drafted."""

    session_id: str
    base_length: int
    tree: TokenTree = EMPTY
    missed: bool = False
    exchange_count: int = 0
    forward_us: int = 0
    kept_depth: int = 0


@dataclass(frozen=True, slots=True)
class DraftItem:
    """One session of a step; see DraftItem in drafter.proto.

    `tree` has been guessed already: the drafter goes on growing it, best value first, and answers with the whole. Its
    nodes keep their places, new ones follow them; where it says a token twice below one parent, the two are joined.
    `run_ahead` says that another step will follow behind the answer, so that a drafter that has nothing else to do may
    begin it at the end of its own best path. Siblings of a node's best child are left out below a confidence of
    `sibling_min`.
    """

    session_id: str
    base_length: int
    token_ids: tuple[int, ...]
    step_count: int = 1
    width: int = 1
    beam: int = 1
    sampling: Sampling = GREEDY
    value_min: float = 0.0
    tree: TokenTree = EMPTY
    run_ahead: bool = False
    sibling_min: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """Command: send this to a drafter."""

    drafter: str
    step_id: int
    items: tuple[DraftItem, ...]
    round_id: int


@dataclass(frozen=True, slots=True)
class CancelSteps:
    """Command: nobody waits for these steps of a drafter any more."""

    drafter: str
    step_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseSessions:
    """Command: these sessions, of which a drafter has been asked, have ended."""

    drafter: str
    session_ids: tuple[str, ...]


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
