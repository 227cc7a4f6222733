"""Plans that rest: nobody waits for their drafters, and everybody for their answer."""

from __future__ import annotations

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.live import Live
from cosine.core.pace import Pace
from cosine.core.plan import DraftPlan
from cosine.core.planner import LATE_SHARE, Planner
from cosine.core.processors import Processor
from cosine.core.routing import Route, SharedScores
from cosine.core.seat import Seat
from cosine.core.strategy import COSINE
from cosine.core.timing import DraftModel, LineModel

DRAFTERS = [ev.DrafterFacts(f"drafter-{index}", processor=Processor(f"card-{index}")) for index in range(5)]
REQUESTS = 16
BASE_MS, PASS_MS = 30.0, 8.0


def planner_and_pace(head_share: float) -> tuple[Planner, Pace]:
    """Drafting takes longer than the fixed part of a pass; in such a share of the rounds something is left of it."""
    pace = Pace(verify=LineModel(BASE_MS, 0.1), drafting=DraftModel.seeded(pass_ms=PASS_MS, row_ms=0.1))
    pace.head_share, pace.head_depth = head_share, 8.0
    pace.note_verifiers({"verifier": Processor("cuda:0")})
    planner = Planner(SchedulerConfig(), pace)
    planner.fusion_up("fusion")
    planner.drafters_changed("fusion", DRAFTERS)
    return planner, pace


def live(number: int) -> Live:
    admission = ev.Admission(f"r{number}", 1, "g", (1, 2), 1, 99)
    found = Live(admission, f"s{number}", COSINE, Route(SharedScores()), [1], 0.0)
    found.verifier, found.fusion, found.planned = "verifier", "fusion", 1
    found.route.round_count = 8
    return found


def planned(planner: Planner) -> tuple[DraftPlan, list[Live]]:
    lives = [live(number) for number in range(REQUESTS)]
    plan = planner.plan("fusion", lives, 1, 0.0, 1)
    assert plan is not None
    return plan, lives


def test_who_is_ready_waits_for_a_resting_plans_answer_however_long_drafting_takes() -> None:
    planner, pace = planner_and_pace(0.9)
    plan, lives = planned(planner)
    assert plan.items[0].value_min > 1.0
    assert all(one.rested for one in lives)
    assert PASS_MS * plan.items[0].depth > BASE_MS, "to wait for drafters would cost more than a pass of one's own"
    seat, other = Seat(ev.VerifierFacts("verifier"), pace.verify), live(99)
    until = planner.worth_waiting_until(seat, other, 0.001)
    assert until is not None
    assert until * 1000 - pace.drafting.exchange_ms >= LATE_SHARE * BASE_MS, (
        "messages may be late by more than they take"
    )
    assert planner.worth_waiting_until(seat, other, until) is None


def test_a_resting_plan_takes_all_drafters_that_the_strategy_allows() -> None:
    planner, pace = planner_and_pace(0.9)
    pace.drafting.pass_extra_ms = 4.0
    plan, lives = planned(planner)
    assert plan.items[0].value_min > 1.0
    assert all(len(item.drafters) == COSINE.drafter_count for item in plan.items)
    assert lives[0].offer is not None
    assert lives[0].offer.crew == 0.0
