"""One strategy under one load: runs it, and what came out in figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cosine.core.strategy import parse
from cosine.sim.library import Library
from cosine.sim.load import Load, Source
from cosine.sim.mesh import Mesh, Request
from cosine.sim.peers import Shape
from cosine.sim.profile import Profile


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one run. Times in milliseconds; shares between 0 and 1.

    `latency_ms` is a request's time from coming to its last token, per token. `acceptance_length` is committed tokens
    per verdict (those that end a prefill left out). `drafted_waste` and `verified_waste` are the shares of tokens that
    drafters proposed, and that the target was asked about, which no text took.
    """

    strategy: str
    load: str
    request_count: int
    latency_ms: float
    tokens_per_s: float
    first_token_ms: float
    first_token_p95_ms: float
    acceptance_length: float
    verifier_busy: float
    drafter_busy: float
    drafted_waste: float
    verified_waste: float
    seconds: float


def run(
    profile: Profile,
    library: Library,
    strategy: str,
    load: Load,
    shape: Shape | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> tuple[Row, Mesh]:
    """Plays a load until its measured requests are done; `on_done` hears of each. Raises WrongText where anything but
    the recorded text is committed."""
    mesh = Mesh(profile, library, strategy, parse(strategy).runs > 1, shape)
    source = Source(mesh, load, on_done)
    source.start()
    mesh.run(lambda: source.all_done)
    return summary(strategy, load, mesh, source.measured), mesh


def summary(strategy: str, load: Load, mesh: Mesh, measured: Sequence[Request]) -> Row:
    """The figures of a run that has ended; latencies are of the measured requests, everything else of the whole run."""
    seconds = mesh.clock.now
    latencies = [1000 * (request.done_at - request.came) / request.token_count for request in measured]
    first = sorted(1000 * (request.first_at - request.came) for request in measured)
    figures = [request.figures for request in measured if request.figures is not None]
    rounds = sum(entry.round_count - 1 for entry in figures)
    verifiers = [peer for cell in mesh.cells for peer in cell.verifiers.values()]
    accepted = mesh.accepted_count()
    return Row(
        strategy,
        load.name,
        len(measured),
        sum(latencies) / len(latencies),
        mesh.token_count / seconds,
        _quantile(first, 0.5),
        _quantile(first, 0.95),
        sum(request.token_count - 1 for request in measured) / max(1, rounds),
        _share(sum(peer.device.busy_s() for peer in verifiers), len(verifiers) * seconds),
        _share(sum(peer.device.busy_s() for peer in mesh.drafters.values()), len(mesh.drafters) * seconds),
        1 - _share(accepted, sum(peer.drafter.drafted_count for peer in mesh.drafters.values()), 1.0),
        1 - _share(accepted, sum(peer.verifier.verified_count for peer in verifiers), 1.0),
        seconds,
    )


def _share(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value that a share of them does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
