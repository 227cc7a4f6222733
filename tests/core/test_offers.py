"""Offers between plans: what won is looked at again, what might win now and then, and always the same way."""

from __future__ import annotations

from cosine.core import events as ev
from cosine.core.goodput import Shape, best_offer
from cosine.core.live import Live
from cosine.core.offers import CHALLENGE_PLANS, Champion, Offers
from cosine.core.pace import HitRate, Pace
from cosine.core.routing import Route, SharedScores
from cosine.core.strategy import parse
from cosine.core.timing import DraftModel, LineModel

FULL = Shape(8, 2, 2, width=3, node_budget=24, fusion_interval=8)
WAYS = [(1, 1), (1, 2), (2, 1), (2, 2)]


def pace(pass_ms: float = 2.5) -> Pace:
    return Pace(verify=LineModel(25.0, 0.1), drafting=DraftModel.seeded(pass_ms, 0.002, 0.4))


def test_without_a_champion_everything_is_looked_at() -> None:
    assert Champion().among(WAYS, 8) == [(way, range(1, 9)) for way in WAYS]
    assert Champion((3, 1), 4).among(WAYS, 8) == [(way, range(1, 9)) for way in WAYS], "three drafters are gone"


def test_a_champion_meets_every_challenger_in_turn_and_mostly_nobody() -> None:
    champion = Champion((2, 2), 5)
    seen = [champion.among(WAYS, 8) for _ in range(CHALLENGE_PLANS * len(WAYS))]
    alone = [ways for ways in seen if ways == [((2, 2), range(4, 7))]]
    assert len(alone) == (CHALLENGE_PLANS - 1) * len(WAYS)
    assert {way for ways in seen for way, _ in ways} == set(WAYS)


def test_the_depths_near_a_champion_stay_within_the_strategy() -> None:
    assert Champion((2, 2), 8).among(WAYS, 8) == [((2, 2), range(7, 9))]
    assert Champion((2, 2), 0).among(WAYS, 8) == [((2, 2), range(1, 2))]
    assert Champion((2, 2), 8).among(WAYS, 2) == [((2, 2), range(1, 3))], "the verifier is behind: less is allowed now"


def test_a_champion_follows_what_pays_to_what_a_look_at_everything_finds() -> None:
    champion = Champion()
    for its, rate in ((pace(), 0.9), (pace(25.0), 0.6), (pace(0.5), 0.95)):
        for _ in range(CHALLENGE_PLANS * len(WAYS) + FULL.depth):
            offer = best_offer(FULL, its, [rate] * 8, 5, among=champion.among)
            champion.won(offer)
        best = best_offer(FULL, its, [rate] * 8, 5)
        assert offer.gain >= 0.995 * best.gain
        assert (offer.drafter_count, offer.beam) == (best.drafter_count, best.beam)


def test_strategies_that_take_turns_keep_their_own_depths() -> None:
    """What a shallow one found best is not where a deep one has to look."""
    deep, shallow = (drafting_alone(name) for name in ("cosine", "cosine:depth=2"))
    its = pace(0.5)
    its.verify = LineModel(200.0, 0.1)
    mixed, alone = Offers(its), Offers(its)
    for _ in range(6 * CHALLENGE_PLANS):
        together = [mixed.make([live], 5, 1, 256).depths for live in (deep, shallow)]
    for _ in range(6 * CHALLENGE_PLANS):
        apart = [alone.make([deep], 5, 1, 256).depths]
    assert together == [*apart, (2,)]
    assert apart[0][0] > 4


def drafting_alone(strategy: str) -> Live:
    admission = ev.Admission("r", 1, "gateway", (1, 2, 3), 3, 64, strategy=strategy)
    live = Live(admission, "s", parse(strategy), Route(SharedScores()), [1, 2, 3], 0.0)
    live.hit_rate = HitRate(0.95)
    return live
