"""From a profile to a mesh: every time in slow motion, every peer with its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.paper.park import drafter_pace, free_ports, link_text, mesh_spec, verifier_pace, workers
from cosine.cli.roster import roster
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest
from cosine.core.strategy import PRESETS
from cosine.engine.loading import parse_pace
from cosine.peer.slow_link import parse_link
from cosine.sim.profile import DrafterDevice, Link, Profile, VerifierDevice, equal_cost, read_profile

PAPER = read_profile(Path(__file__).resolve().parents[2] / "bench" / "profiles" / "paper-70b.yaml")
SCALE = 4.0


def test_a_verifiers_pace_is_its_times_slower() -> None:
    pace = parse_pace(verifier_pace(VerifierDevice("card", 4, 1.0, 25.0, 0.1, 0.06), SCALE))
    assert (pace.base_ms, pace.row_ms, pace.kilotoken_ms) == pytest.approx((100.0, 0.4, 0.24))


def test_a_pool_shares_its_rows() -> None:
    device = DrafterDevice("card", 5, 1.0, 2.5, 0.1, 0.05)
    pace = parse_pace(drafter_pace(device, SCALE))
    assert (pace.base_ms, pace.row_ms, pace.kilotoken_ms) == pytest.approx((10.0, 0.08, 0.04))
    assert SCALE * device.forward_ms(30, 2000) == pytest.approx(pace.base_ms + 30 * pace.row_ms + 2 * pace.kilotoken_ms)


def test_a_link_is_slower_both_ways_and_in_bytes() -> None:
    link = Link(latency_ms=0.5, mbps=100.0)
    pace = parse_link(link_text(link, SCALE))
    assert pace.round_trip_ms == pytest.approx(2 * 0.5 * SCALE)
    assert pace.transfer_s(1000) * 1000 == pytest.approx(SCALE * (link.transfer_ms(1000) - link.latency_ms))


@pytest.mark.parametrize("name", PRESETS)
def test_every_peer_that_holds_a_model_has_its_pace_link_and_metrics(name: str) -> None:
    park = equal_cost(PAPER, PRESETS[name])
    ports = {worker: 4000 + index for index, worker in enumerate(workers(park))}
    plans = {plan.peer_id: plan.arguments for plan in roster(mesh_spec(park, SCALE, ports))}
    assert ports.keys() == plans.keys() - {"gateway", "scheduler", "fusion"}
    for worker, port in ports.items():
        flags = dict(argument.removeprefix("--").split("=", 1) for argument in plans[worker])
        drafter = park.drafters.get(worker)
        expected = verifier_pace(park.verifier, SCALE) if drafter is None else drafter_pace(drafter, SCALE)
        link = PAPER.verifier_link if drafter is None else PAPER.drafter_link
        assert (flags["pace"], flags["link"]) == (expected, link_text(link, SCALE))
        assert flags["metrics-listen"] == f"127.0.0.1:{port}"
        assert flags["threads"] == "1"


def test_drafters_run_ahead_where_that_is_asked_for() -> None:
    ports = dict.fromkeys(workers(PAPER), 1)
    for run_ahead in (False, True):
        plans = roster(mesh_spec(PAPER, SCALE, ports, run_ahead))
        eager = {plan.peer_id for plan in plans if "--run-ahead" in plan.arguments}
        assert eager == (set(PAPER.drafters) if run_ahead else set())


def test_a_drafter_that_the_test_bed_has_not_is_refused_by_name() -> None:
    drafters = {"poetry": next(iter(PAPER.drafters.values()))}
    profile = Profile("p", "made up", 1.0, PAPER.verifier, drafters, PAPER.drafter_link, PAPER.verifier_link)
    with pytest.raises(BadRequest, match="poetry"):
        mesh_spec(profile, SCALE, {"verifier": 1, "poetry": 2})


def test_the_schedulers_own_times_are_slower_too() -> None:
    config = SchedulerConfig()
    ports = dict.fromkeys(workers(PAPER), 1)
    plan = next(plan for plan in roster(mesh_spec(PAPER, SCALE, ports)) if plan.role == "scheduler")
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in plan.arguments)
    assert float(flags["batch-ms-max"]) == SCALE * config.batch_ms_max
    assert float(flags["draft-deadline-ms-min"]) == SCALE * config.draft_deadline_min
    assert float(flags["draft-deadline-ms-max"]) == SCALE * config.draft_deadline_max
    assert float(flags["batch-deadline-s"]) == SCALE * config.batch_deadline_s


def test_ports_differ() -> None:
    names = [f"peer-{number}" for number in range(20)]
    ports = free_ports(names)
    assert list(ports) == names
    assert len(set(ports.values())) == 20
