"""Strategies as data: each system of the field is a row of the same knobs, to be compared on one engine.

`PRESETS` is the table; a row of one's own is a `Strategy` added to it. `parse` reads what a request or a mesh asks for:
the name of a preset, followed where wanted by knobs that differ from it, as in `cosine:lookahead=0,calibrated=no`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from enum import Enum
from itertools import chain
from typing import Any

from cosine.core.errors import BadRequest
from cosine.core.plan import Cooperation, Reading
from cosine.core.routing import SCORE, Score
from cosine.core.speculation import Cut


class Choice(Enum):
    """Which drafters work on a request."""

    NONE = "none"
    FIRST = "first"
    ALL = "all"
    ROUTED = "routed"
    BANDIT = "bandit"


class Length(Enum):
    """Who decides how far to draft: nobody; predicted goodput; Minions' trend of t_verify per accepted token; DSI's
    smallest lookahead that the verifiers at hand can keep up with."""

    FIXED = "fixed"
    GOODPUT = "goodput"
    TREND = "trend"
    COVERED = "covered"


class Batching(Enum):
    """Which of those that wait are verified together: all in their order, groups of similar length (SPIN), or the set
    of the least time per request (CoSine)."""

    CONTINUOUS = "continuous"
    DECOMPOSED = "decomposed"
    OPTIMISED = "optimised"


@dataclass(frozen=True, slots=True)
class Strategy:
    """The knobs.

    `drafter` is the one that Choice.FIRST takes, where it is up. `first_count` drafters take part in a request's first
    round, half as many in each that follows, down to `drafter_count`; `score` is how they are judged. `length` other
    than FIXED makes `depth` an upper bound; under GOODPUT `cut` says how they come within the verifier's bound.
    `value_min` ends a draft whose best path's value falls below it. `lookahead` is how many steps drafters go on while
    a verdict is out; `runs` how many unverified stretches of one request may be at the target at once, over `verifiers`
    verifiers. `groups` take turns at the verifier. `calibrated` and `shared_noise` are there to be turned off in
    ablations. `demanded` names the knobs that were asked for one by one.
    """

    name: str
    source: str
    choice: Choice
    drafter: str = ""
    drafter_count: int = 1
    first_count: int = 0
    cooperation: Cooperation = Cooperation.SINGLE
    reading: Reading = Reading.REPLACE
    fusion_interval: int = 1
    depth: int = 0
    width: int = 1
    beam: int = 1
    node_budget: int = 16
    value_min: float = 0.0
    length: Length = Length.FIXED
    cut: Cut = Cut.VALUE
    batching: Batching = Batching.CONTINUOUS
    lookahead: int = 0
    runs: int = 1
    verifiers: int = 1
    groups: int = 1
    score: Score = SCORE
    priors: bool = False
    calibrated: bool = True
    shared_noise: bool = True
    demanded: frozenset[str] = frozenset()

    @property
    def adaptive(self) -> bool:
        """True where the controller may stop drafts early, spend the verifier's rows where they are most likely
        accepted, and fall back to plain decoding where that is predicted to be faster."""
        return self.length is Length.GOODPUT

    @property
    def weighs_tokens(self) -> bool:
        """True where routing learns from how sure drafters were of their tokens and how near they came, which fusion
        and verifier only tell where they are asked. Of streamed requests it learns nothing."""
        return self.choice is Choice.ROUTED and self.score is Score.HARMONIC and self.runs == 1


PLAIN = Strategy("plain", "autoregressive decoding", Choice.NONE)

VANILLA = Strategy("vanilla", "speculative sampling, arXiv 2302.01318: K = 4", Choice.FIRST, depth=4, node_budget=4)

SPECINFER = Strategy(
    "specinfer",
    "SpecInfer, arXiv 2305.09781: merged trees of all drafters, at most 64 nodes, depth 8",
    Choice.ALL,
    drafter_count=64,
    cooperation=Cooperation.MERGED,
    depth=8,
    width=1,
    node_budget=64,
)

MINIONS = Strategy(
    "minions",
    "Minions, arXiv 2402.15678: majority-voted path of weighted drafters, length by t_verify per accepted token, "
    "drafting decoupled from verification; lengths are not published, at most 8 here",
    Choice.ALL,
    drafter_count=64,
    cooperation=Cooperation.VOTED,
    depth=8,
    node_budget=8,
    length=Length.TREND,
    groups=2,
)

PIPEINFER = Strategy(
    "pipeinfer",
    "PipeInfer, arXiv 2407.11798: micro-batches of 4 drafted on while verdicts are out, confidence cutoff 0.1, "
    "early cancellation",
    Choice.FIRST,
    depth=4,
    node_budget=4,
    value_min=0.1,
    runs=4,
    calibrated=False,
)

DSI = Strategy(
    "dsi",
    "DSI, arXiv 2405.14105: several targets verify one request's stretches at once, lookahead 5, at most 7 targets",
    Choice.FIRST,
    depth=5,
    node_budget=5,
    length=Length.COVERED,
    runs=7,
    verifiers=7,
    calibrated=False,
)

SPIN = Strategy(
    "spin",
    "SPIN, arXiv 2503.15921: bandit on accepted tokens per second with capacity matching, decomposed batches, "
    "micro-batch pipeline of 4; drafts of 4 tokens as in speculative sampling",
    Choice.BANDIT,
    depth=4,
    node_budget=4,
    batching=Batching.DECOMPOSED,
    groups=4,
)

COSINE = Strategy(
    "cosine",
    "CoSine, arXiv 2503.10325: expertise routing, confidence-based fusion, optimised batches, adaptive speculation; "
    "constants are not published, here depth to 8, a first round of 5 drafters and later 2, 24 nodes",
    Choice.ROUTED,
    drafter_count=2,
    first_count=5,
    cooperation=Cooperation.FUSED,
    fusion_interval=8,
    reading=Reading.FORK,
    depth=8,
    width=3,
    beam=2,
    node_budget=24,
    length=Length.GOODPUT,
    cut=Cut.LARGEST,
    batching=Batching.OPTIMISED,
    lookahead=12,
    priors=True,
)

PRESETS = {row.name: row for row in (PLAIN, VANILLA, SPECINFER, MINIONS, PIPEINFER, DSI, SPIN, COSINE)}

BOUNDS = {
    "drafter_count": (1, 64),
    "first_count": (0, 64),
    "fusion_interval": (1, 64),
    "depth": (0, 64),
    "width": (1, 16),
    "beam": (1, 16),
    "node_budget": (1, 256),
    "value_min": (0.0, 1.0),
    "lookahead": (0, 64),
    "runs": (1, 16),
    "verifiers": (1, 16),
    "groups": (1, 16),
}
KNOBS = {knob.name: knob for knob in fields(Strategy) if knob.name not in ("name", "source", "demanded")}
WORDS = {"yes": True, "no": False}
NAMES_SAID = 32  # a refusal travels in headers


def parse(text: str, default: str = "cosine") -> Strategy:
    """The strategy a text names: `PRESET` or `PRESET:KNOB=VALUE,...`; empty takes the default.

    Raises BadRequest (UNKNOWN_STRATEGY, UNKNOWN_KNOB, KNOB_VALUE, KNOBS_CONTRADICT), naming what is known.
    """
    name, _, knobs = (text or default).partition(":")
    row = PRESETS.get(name)
    if row is None:
        known = ", ".join(PRESETS)
        raise BadRequest("UNKNOWN_STRATEGY", f"there is no strategy {name!r}; choose one of {known}", {"known": known})
    if knobs:
        given: dict[str, Any] = {}
        for pair in knobs.split(","):
            knob, value = _knob(pair)
            if given.setdefault(knob, value) != value:
                raise BadRequest("KNOBS_CONTRADICT", f"strategy {text!r}: {knob} has two values: give one")
        demanded = frozenset(given)
        if "depth" in demanded:  # who asks for deeper drafts wants them verified
            given.setdefault("node_budget", max(row.node_budget, given["depth"]))
        row = replace(row, name=text, demanded=demanded, **given)
    check(row)
    return row


def check(row: Strategy) -> None:
    """Raises BadRequest(KNOBS_CONTRADICT) where knobs of a row exclude one another, or where one that was asked for by
    name says something of what the row does not do."""
    problem = next(chain(_contradictions(row), _in_vain(row)), "")
    if problem:
        raise BadRequest("KNOBS_CONTRADICT", f"strategy {row.name!r}: {problem}")


def _contradictions(row: Strategy) -> Iterator[str]:
    """Knobs that exclude one another."""
    if (row.choice is Choice.NONE) != (row.depth == 0):
        yield "choice=none drafts nothing and depth=0 needs it: give both or neither"
    if row.choice in (Choice.FIRST, Choice.BANDIT) and _drafters_demanded(row) > 1:
        yield f"choice={row.choice.value} takes one drafter for a request: it needs drafter_count=1"
    if row.cooperation is Cooperation.SINGLE and max(row.drafter_count, row.first_count) > 1:
        counts = f"drafter_count={row.drafter_count} and first_count={row.first_count}"
        yield f"cooperation=single takes one drafter, not {counts}: give drafter_count=1,first_count=1 with it"
    if row.node_budget < row.depth and not row.adaptive:
        fitting = f"node_budget={row.depth} or more, or depth={row.node_budget} or less"
        yield f"drafts of depth={row.depth} do not fit into node_budget={row.node_budget}: give {fitting}"
    if row.verifiers > row.runs:
        yield f"verifiers={row.verifiers} cannot be busy with runs={row.runs}: give at least as many runs"
    if row.runs > 1 and (row.cooperation is not Cooperation.SINGLE or row.width * row.beam > 1):
        yield "runs above 1 continue one chain: they need cooperation=single, width=1 and beam=1"
    if row.runs > 1 and row.lookahead:
        yield "runs above 1 look ahead by themselves: they need lookahead=0"
    if row.runs > 1 and row.groups > 1:
        yield f"groups={row.groups} take turns at the verifier, and runs above 1 wait for no turn: give groups=1"


def _in_vain(row: Strategy) -> Iterator[str]:
    """Knobs that were asked for by name, with a value that asks for something, and would do nothing."""
    asked = {knob for knob in row.demanded if getattr(row, knob) != getattr(PLAIN, knob)}
    if "cut" in asked and not row.adaptive:
        yield "cut=largest says how drafts of length=goodput are cut: give both or neither"
    if row.drafter and row.choice is not Choice.FIRST:
        yield f"drafter={row.drafter} names the one of choice=first: give both or neither"
    if "reading" in asked and row.cooperation is not Cooperation.FUSED:
        yield "reading=fork says how drafters go on behind a fused token: it needs cooperation=fused"
    if "fusion_interval" in asked and row.cooperation is not Cooperation.FUSED:
        yield f"fusion_interval={row.fusion_interval} lies between exchanges of cooperation=fused: give both or neither"
    if "score" in asked and row.choice is not Choice.ROUTED:
        yield f"score={row.score.value} says how choice=routed judges drafters: give both or neither"
    if "priors" in asked and row.choice is not Choice.ROUTED and not row.adaptive:
        yield "priors=yes says where choice=routed and length=goodput start: it needs one of them"


def check_demands(
    row: Strategy, verifiers_seen: int | None, drafters_seen: int | None, names_seen: Collection[str] | None = None
) -> None:
    """Raises BadRequest where a strategy demands more peers than the mesh has had, or a drafter by a name that none of
    its models and peers has had (None: nothing is known).

    A preset takes as many as there are; only what was asked for by number or by name must be there. Peers that are
    merely away count: losing them costs speed, not answers.
    """
    if row.drafter and names_seen is not None and row.drafter not in names_seen:
        names = sorted(names_seen)
        more = [f"and {len(names) - NAMES_SAID} more"] if len(names) > NAMES_SAID else []
        known = ", ".join(names[:NAMES_SAID] + more) or "none"
        raise BadRequest(
            "UNKNOWN_DRAFTER",
            f"strategy {row.name!r} takes drafter {row.drafter!r}, which the mesh does not have; it has {known}",
            {"field": "strategy", "value": row.name, "allowed": known},
        )
    wanted = row.verifiers if "verifiers" in row.demanded else min(2, row.verifiers)
    if verifiers_seen is not None and verifiers_seen < wanted:
        raise _too_few(row, "verifiers", wanted, verifiers_seen)
    wanted = _drafters_demanded(row)
    if drafters_seen is not None and drafters_seen < wanted:
        raise _too_few(row, "drafters", wanted, drafters_seen)


def _too_few(row: Strategy, peers: str, wanted: int, seen: int) -> BadRequest:
    advice = f"ask for {seen} at most" if seen else "choose another strategy"
    return BadRequest(
        f"TOO_FEW_{peers.upper()}",
        f"strategy {row.name!r} needs {wanted} {peers} for one request and the mesh has {seen}; start more, or "
        f"{advice}",
        {"field": "strategy", "value": row.name, "allowed": f"at most {seen} {peers}"},
    )


def _drafters_demanded(row: Strategy) -> int:
    """How many drafters were asked for by number; 0 where that was left to the preset."""
    counts = {"drafter_count": row.drafter_count, "first_count": row.first_count}
    return max((count for name, count in counts.items() if name in row.demanded), default=0)


def _knob(pair: str) -> tuple[str, Any]:
    """A knob's name and value. Raises BadRequest."""
    name, _, text = pair.partition("=")
    if name not in KNOBS:
        known = ", ".join(KNOBS)
        raise BadRequest("UNKNOWN_KNOB", f"there is no knob {name!r}; the knobs are {known}", {"known": known})
    default = getattr(PLAIN, name)
    kind = type(default)
    try:
        if isinstance(default, bool):
            return name, WORDS[text]
        if isinstance(default, str):
            return name, text
        if isinstance(default, Enum):
            return name, _member(type(default), text)
        value = kind(text)
        low, high = BOUNDS[name]
        if low <= value <= high:
            return name, value
    except (KeyError, ValueError):  # the refusal below says what would have been right
        pass
    raise BadRequest("KNOB_VALUE", f"{name}={text!r} is no value of the knob; it takes {_values(name, default)}")


def _member(kind: type[Enum], text: str) -> Enum:
    """Raises KeyError where no member has the name."""
    return {member.name.lower(): member for member in kind}[text]


def _values(name: str, default: Any) -> str:
    if isinstance(default, bool):
        return "yes or no"
    if isinstance(default, Enum):
        return ", ".join(member.name.lower() for member in type(default))
    low, high = BOUNDS[name]
    return f"{low} to {high}"
