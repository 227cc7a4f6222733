"""Counters: read from a metrics page, and what their differences say."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bench.paper.counters import (
    ACCEPTED,
    DRAFTED,
    OVERRUNS,
    PASSES,
    READ,
    STOPPED,
    VERIFIED,
    VERIFY_S,
    difference,
    parse_page,
    usage,
    wasted,
)
from cosine.rpc import metrics


def counted(**values: float) -> dict[str, float]:
    names = {"verify_s": VERIFY_S, "accepted": ACCEPTED, "drafted": DRAFTED, "verified": VERIFIED}
    names |= {"stopped": STOPPED, "passes": PASSES, "overruns": OVERRUNS}
    return dict.fromkeys(READ, 0.0) | {names[name]: value for name, value in values.items()}


def test_the_names_are_those_the_services_count_under() -> None:
    registry = CollectorRegistry()
    for metric in (
        metrics.VERIFIER_FORWARD_SECONDS,
        metrics.SPEC_DRAFT_TOKENS,
        metrics.SPEC_ACCEPTED_TOKENS,
        metrics.VERIFIER_STOPPED_NODES,
        metrics.DRAFTER_TOKENS,
        metrics.PACED_PASSES,
        metrics.PACED_OVERRUNS,
    ):
        registry.register(metric)
    page = generate_latest(registry).decode()
    assert all(any(line.startswith(f"{name} ") for line in page.splitlines()) for name in READ)


def test_a_page_is_read_and_what_it_lacks_is_nought() -> None:
    registry = CollectorRegistry()
    Histogram("cosine_verifier_forward_seconds", "time", registry=registry).observe(0.25)
    Counter("cosine_drafter_tokens", "nodes", registry=registry).inc(7)
    Gauge("cosine_paced_passes", "passes", registry=registry).set(40)
    Counter("something_else", "other", registry=registry).inc(3)
    assert parse_page(generate_latest(registry).decode()) == counted(verify_s=0.25, drafted=7, passes=40)


def test_only_what_was_counted_in_between_matters() -> None:
    before = {"v": counted(verify_s=3.0, passes=10)}
    after = {"v": counted(verify_s=5.5, passes=14)}
    assert difference(before, after) == {"v": counted(verify_s=2.5, passes=4)}


def test_usage_adds_up_the_processes_and_takes_the_worst_overrun() -> None:
    counts = {
        "verifier-0": counted(verify_s=4.0, verified=60, accepted=20, passes=100, overruns=1),
        "verifier-1": counted(verify_s=6.0, verified=40, accepted=30, passes=50, overruns=2),
        "a": counted(drafted=150, passes=1000, overruns=0),
        "b": counted(drafted=50, passes=200, overruns=3),
        "idle": counted(),
    }
    used = usage(counts, wall_s=10.0, verifier_count=2)
    assert used.verifier_busy == pytest.approx(0.5)
    assert used.drafted_wasted == pytest.approx(1 - 50 / 200)
    assert used.verified_wasted == pytest.approx(1 - 50 / 100)
    assert (used.pass_count, used.overrun_count) == (1350, 6)
    assert used.overrun == pytest.approx(2 / 50)


def test_what_a_pass_had_begun_on_when_it_was_stopped_was_verified_for_nothing() -> None:
    used = usage({"verifier": counted(verified=60, stopped=40, accepted=50)}, wall_s=1.0, verifier_count=1)
    assert used.verified_wasted == pytest.approx(1 - 50 / 100)


def test_without_drafts_nothing_is_wasted_and_nothing_claimed() -> None:
    used = usage({"verifier": counted(verify_s=9.0, passes=10)}, wall_s=10.0, verifier_count=1)
    assert (used.drafted_wasted, used.verified_wasted, used.overrun) == (None, None, 0.0)


def test_shares_stay_shares_where_counting_began_amid_a_round() -> None:
    assert wasted(12, 10) == 0.0
    assert wasted(0, 10) == 1.0
