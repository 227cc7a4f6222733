"""Processors: who is in whose way, and that an adaptive strategy looks ahead only where nobody is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cosine.core import events as ev
from cosine.core import pace as pace_module
from cosine.core.config import SchedulerConfig
from cosine.core.offers import Offers
from cosine.core.pace import Pace
from cosine.core.planner import Planner
from cosine.core.processors import UNKNOWN, Processor, crowded
from cosine.core.seats import Seats
from cosine.core.strategy import COSINE, parse

GPU = Processor("cuda:0")
LAPTOP = Processor("cpu@laptop", cores=1, threads=1)
SERVER = Processor("cpu@server", cores=8, threads=1)


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ((GPU, SERVER, SERVER), False),
        ((GPU, GPU), True),
        ((LAPTOP,), False),
        ((LAPTOP, LAPTOP), True),
        ((SERVER,) * 8, False),
        ((SERVER,) * 9, True),
        ((SERVER, Processor("cpu@server", cores=8, threads=8)), True),
        ((GPU, SERVER, UNKNOWN), None),
    ],
)
def test_peers_crowd_a_processor_that_has_fewer_cores_than_they_want(
    peers: tuple[Processor, ...], expected: bool | None
) -> None:
    assert crowded(peers) is expected


def lookahead(target: Processor, drafters: tuple[Processor, ...], strategy: str = "cosine") -> int:
    """What a scheduler with these peers lets drafters do while a verdict is out."""
    pace = Pace()
    planner = Planner(SchedulerConfig(), pace)
    seats = Seats(SchedulerConfig(), pace, planner)
    seats.up(ev.VerifierFacts("verifier", processor=target))
    planner.fusion_up("fusion")
    planner.drafters_changed(
        "fusion", [ev.DrafterFacts(f"drafter-{index}", processor=own) for index, own in enumerate(drafters)]
    )
    return Offers(pace).lookahead(parse(strategy))


def test_drafters_with_processors_of_their_own_look_ahead_from_the_first_round() -> None:
    assert lookahead(GPU, (SERVER, SERVER)) == COSINE.lookahead


def test_drafters_that_share_the_targets_processor_wait_for_its_verdict() -> None:
    assert lookahead(LAPTOP, (LAPTOP,)) == 0


def test_drafters_that_share_one_processor_do_not_look_ahead_either() -> None:
    assert lookahead(GPU, (LAPTOP, LAPTOP)) == 0


def test_where_a_peer_does_not_say_it_is_left_to_what_is_learned() -> None:
    assert lookahead(GPU, (SERVER, UNKNOWN)) == 0, "nothing is known yet"


def test_who_asks_for_a_lookahead_gets_it() -> None:
    assert lookahead(LAPTOP, (LAPTOP,), "cosine:lookahead=3") == 3


def test_a_fixed_strategy_looks_ahead_wherever_it_is_asked_to() -> None:
    assert lookahead(LAPTOP, (LAPTOP,), "cosine:length=fixed") == COSINE.lookahead


def test_a_drafter_that_has_left_is_in_nobodys_way() -> None:
    pace = Pace()
    planner = Planner(SchedulerConfig(), pace)
    planner.fusion_up("fusion")
    both = [ev.DrafterFacts(name, processor=LAPTOP) for name in ("code", "prose")]
    planner.drafters_changed("fusion", both)
    planner.drafters_changed("fusion", both[:1])
    assert set(pace.drafters) == {"code"}


def test_drafters_of_a_fusion_that_is_gone_are_in_nobodys_way() -> None:
    pace = Pace()
    planner = Planner(SchedulerConfig(), pace)
    Seats(SchedulerConfig(), pace, planner).up(ev.VerifierFacts("verifier", processor=GPU))
    for fusion, own in (("gone", GPU), ("other", SERVER)):
        planner.fusion_up(fusion)
        planner.drafters_changed(fusion, [ev.DrafterFacts(f"drafter-of-{fusion}", processor=own)])
    assert Offers(pace).lookahead(COSINE) == 0
    planner.fusion_down("gone")
    assert Offers(pace).lookahead(COSINE) == COSINE.lookahead
    assert set(pace.drafters) == {"drafter-of-other"}


def test_a_verifier_that_has_left_is_in_nobodys_way() -> None:
    pace = Pace()
    planner = Planner(SchedulerConfig(), pace)
    seats = Seats(SchedulerConfig(), pace, planner)
    for name, own in (("gone", LAPTOP), ("other", GPU)):
        seats.up(ev.VerifierFacts(name, processor=own))
    planner.fusion_up("fusion")
    planner.drafters_changed("fusion", [ev.DrafterFacts("drafter", processor=LAPTOP)])
    assert Offers(pace).lookahead(COSINE) == 0
    assert seats.down("gone")
    assert Offers(pace).lookahead(COSINE) == COSINE.lookahead
    assert not seats.down("gone")


def test_peers_are_counted_when_they_change_and_not_for_every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def counting(peers: Iterable[Processor]) -> bool | None:
        counts.append(len(known := list(peers)))
        return crowded(known)

    monkeypatch.setattr(pace_module, "crowded", counting)
    pace = Pace()
    planner = Planner(SchedulerConfig(), pace)
    Seats(SchedulerConfig(), pace, planner).up(ev.VerifierFacts("verifier", processor=GPU))
    planner.fusion_up("fusion")
    planner.drafters_changed("fusion", [ev.DrafterFacts(f"drafter-{index}", processor=SERVER) for index in range(5)])
    assert [Offers(pace).lookahead(COSINE) for _ in range(10)] == [COSINE.lookahead] * 10
    assert counts == [1, 6]
