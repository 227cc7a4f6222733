"""Loads: their names, and arrivals that are Poisson at the rates asked for."""

from __future__ import annotations

import pytest

from bench.paper.loads import (
    DEFAULT_LOADS,
    OPEN,
    PHASE_ARRIVALS,
    TIME_SCALE_LEAST,
    Load,
    arrivals,
    capacity_per_s,
    parse_load,
)
from cosine.core.errors import BadRequest
from cosine.sim.profile import Link, Profile, VerifierDevice

LONG_S = 4000.0
LOW, HIGH = 0.2, 1.2
CAPACITY = 5.0


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("closed-16", Load("closed-16", clients=16)),
        ("closed-1-t1", Load("closed-1-t1", clients=1, temperature=1.0)),
        ("open-high", Load("open-high", shares=OPEN["open-high"])),
        ("open-fluctuating-t1", Load("open-fluctuating-t1", shares=OPEN["open-fluctuating"], temperature=1.0)),
    ],
)
def test_a_name_says_what_is_asked(name: str, load: Load) -> None:
    assert parse_load(name) == load


def test_every_default_load_has_a_meaning() -> None:
    assert {parse_load(name).name for name in DEFAULT_LOADS} == set(DEFAULT_LOADS)


@pytest.mark.parametrize("name", ["", "closed", "closed-0", "closed-100", "closed--1", "open", "t1", "closed-4-t2"])
def test_an_unknown_load_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadRequest, match="closed-N, open-low"):
        parse_load(name)


def test_capacity_is_that_of_plain_decoding_sixteen_at_a_time() -> None:
    verifier = VerifierDevice("card", 1, 1.0, base_ms=10.0, row_ms=0.25, kilotoken_ms=1.0)
    profile = Profile("p", "made up", 1.0, verifier, {}, Link(9.0, 1), Link(0.5, 1))
    step_ms = 10 + 16 * 0.25 + 16 * 128 / 1000 + 2 * 0.5
    assert capacity_per_s(profile, 50) == pytest.approx(16 / (step_ms / 1000) / 50)


def test_motion_is_slowest_with_sixteen_at_a_time_and_never_slower_than_the_profile_says() -> None:
    verifier = VerifierDevice("card", 1, 1.0, base_ms=10.0, row_ms=0.25, kilotoken_ms=1.0)
    slow, fast = (Profile("p", "made up", scale, verifier, {}, Link(9.0, 1), Link(0.5, 1)) for scale in (20.0, 1.0))
    scales = [parse_load(name).time_scale(slow) for name in ("closed-1", "closed-9", "closed-16", "closed-64")]
    assert scales == [TIME_SCALE_LEAST, 15.0, 20.0, 20.0]
    assert parse_load("open-low").time_scale(slow) == parse_load("closed-8").time_scale(slow)
    assert {parse_load(name).time_scale(fast) for name in DEFAULT_LOADS} == {1.0}


def test_the_same_seed_brings_the_same_arrivals() -> None:
    assert arrivals((0.5,), CAPACITY, 20.0, seed=1) == arrivals((0.5,), CAPACITY, 20.0, seed=1)
    assert arrivals((0.5,), CAPACITY, 20.0, seed=1) != arrivals((0.5,), CAPACITY, 20.0, seed=2)


@pytest.mark.parametrize("shares", [(LOW,), (HIGH,), (LOW, HIGH)])
def test_arrivals_come_at_the_mean_rate_within_the_time(shares: tuple[float, ...]) -> None:
    times = arrivals(shares, CAPACITY, LONG_S, seed=3)
    mean = CAPACITY * sum(shares) / len(shares)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < LONG_S
    assert len(times) == pytest.approx(mean * LONG_S, abs=5 * (mean * LONG_S) ** 0.5)


def test_a_fluctuating_load_has_each_rate_in_its_phases() -> None:
    phase_s = PHASE_ARRIVALS / (CAPACITY * (LOW + HIGH) / 2)
    counts = [0, 0]
    for time in arrivals((LOW, HIGH), CAPACITY, LONG_S, seed=4):
        counts[int(time / phase_s) % 2] += 1
    for count, share in zip(counts, (LOW, HIGH), strict=True):
        expected = share * CAPACITY * LONG_S / 2
        assert count == pytest.approx(expected, abs=5 * expected**0.5 + PHASE_ARRIVALS)
