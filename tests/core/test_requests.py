"""Requests of a scheduler: what they have in common from the start."""

from __future__ import annotations

from cosine.core.config import SchedulerConfig
from cosine.core.events import Admission
from cosine.core.pace import Pace
from cosine.core.requests import Requests
from cosine.core.routing import Credit
from cosine.core.strategy import parse


def test_requests_without_priors_start_from_how_drafters_did_in_all_others() -> None:
    requests, strategy = Requests(SchedulerConfig(), Pace()), parse("cosine:priors=no")
    one, other = (
        requests.enter(Admission(name, 1, "gateway", (1, 2, 3), 3, 8), strategy, number, 0.0)
        for number, name in enumerate("pq")
    )
    one.route.note({"d1": Credit(9, 10)}, 9)
    assert other.route.rate("d1") > other.route.rate("d0")
