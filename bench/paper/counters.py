"""What the processes of a mesh count of themselves, read over /metrics; and what that says of one measurement."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
VERIFY_S = "cosine_verifier_forward_seconds_sum"
VERIFIED = "cosine_spec_decode_num_draft_tokens_total"
STOPPED = "cosine_verifier_stopped_nodes_total"
ACCEPTED = "cosine_spec_decode_num_accepted_tokens_total"
DRAFTED = "cosine_drafter_tokens_total"
PASSES = "cosine_paced_passes"
OVERRUNS = "cosine_paced_overruns"
READ = frozenset({VERIFY_S, VERIFIED, STOPPED, ACCEPTED, DRAFTED, PASSES, OVERRUNS})

Counters = Mapping[str, Mapping[str, float]]  # per peer, per metric


async def read_counters(ports: Mapping[str, int]) -> Counters:
    """The counters of all peers, now."""
    pages = await asyncio.gather(*(asyncio.to_thread(_page, port) for port in ports.values()))
    return {name: parse_page(page) for name, page in zip(ports, pages, strict=True)}


def parse_page(page: str) -> dict[str, float]:
    """The counters of one peer's page; what it does not count is 0."""
    found = dict.fromkeys(READ, 0.0)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in READ:
                found[sample.name] += sample.value
    return found


def difference(before: Counters, after: Counters) -> Counters:
    """What was counted in between."""
    return {name: {key: value - before[name][key] for key, value in its.items()} for name, its in after.items()}


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one measurement: share of time in which verifiers computed, shares of drafted and of verified tokens that were
    never accepted (None: there were none), how many paced passes ran, how many of them overran their time, and the
    largest share that overran of one process's.

    Drafted are the nodes that drafters proposed. Verified are the tree nodes of all passes that a verifier began, also
    of those that were stopped between layers; what was cancelled before its pass began is not among them. The simulator
    counts so too, but for one thing: accepted is here what verifiers accepted, there what requests took, and a request
    takes no verdict on a stretch whose context has been refuted meanwhile.
    """

    verifier_busy: float
    drafted_wasted: float | None
    verified_wasted: float | None
    pass_count: int
    overrun_count: int
    overrun: float


def usage(counted: Counters, wall_s: float, verifier_count: int) -> Usage:
    """From counters' differences over `wall_s` seconds of real time."""

    def total(key: str) -> float:
        return sum(its[key] for its in counted.values())

    shares = [its[OVERRUNS] / its[PASSES] for its in counted.values() if its[PASSES]]
    return Usage(
        total(VERIFY_S) / wall_s / verifier_count,
        wasted(total(ACCEPTED), total(DRAFTED)),
        wasted(total(ACCEPTED), total(VERIFIED) + total(STOPPED)),
        int(total(PASSES)),
        int(total(OVERRUNS)),
        max(shares, default=0.0),
    )


def wasted(committed: float, made: float) -> float | None:
    """The share of what was made that was never committed. Counting starts amid rounds, so it is held within 0 to 1."""
    return min(1.0, max(0.0, 1 - committed / made)) if made else None


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
        return bytes(answer.read()).decode()
