"""Knowledge: a request starts from what its kind taught; schedulers that exchange know the same, each thing once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.clusters import Tally, embed
from cosine.core.knowledge import CLUSTERS_MAX, HALF_LIFE_S, PATH, WRITERS_MAX, Changes, Knowledge, Shared, merged
from cosine.core.pace import HIT_PRIOR
from cosine.core.routing import FIRST_GUESS, Credit, Route

DRAFTERS = ("general", "poet", "coder")
HIT, MISS = Credit(4, 5), Credit(0, 1)


def prompt(kind: int, number: int = 0) -> tuple[int, ...]:
    """Tokens of a kind, and a few of the prompt's own."""
    own = 500_000 + 7 * number
    return (*range(1000 * (kind + 1), 1000 * (kind + 1) + 60), *range(own, own + 5))


def teach(knowledge: Knowledge, kind: int, good: str, count: int = 10) -> None:
    """Requests of one kind, for which one drafter is good."""
    for number in range(count):
        priors = knowledge.priors(prompt(kind, number))
        for drafter in DRAFTERS:
            priors.note(drafter, HIT if drafter == good else MISS)
        priors.note_hit_rate(4, 5)


def rates(knowledge: Knowledge, kind: int) -> list[float]:
    """What a request of this kind starts from."""
    priors = knowledge.priors(prompt(kind))
    return [*(priors.prior(drafter) for drafter in DRAFTERS), priors.hit_rate]


# -- one scheduler


def test_where_nothing_is_known_the_first_guesses_hold() -> None:
    assert rates(Knowledge(), 0) == [FIRST_GUESS] * 3 + [HIT_PRIOR]


def test_a_request_starts_from_what_its_kind_taught() -> None:
    knowledge = Knowledge()
    teach(knowledge, 0, "poet")
    teach(knowledge, 1, "coder")
    for kind, good in ((0, "poet"), (1, "coder")):
        priors = knowledge.priors(prompt(kind, 99))
        assert priors.prior(good) > 0.7
        assert all(priors.prior(other) < 0.25 for other in DRAFTERS if other != good)
        assert Route(priors).choose(DRAFTERS, 1) == (good,)
    assert knowledge.cluster_count == 2


def test_a_request_of_a_new_kind_starts_from_what_all_taught() -> None:
    knowledge = Knowledge()
    teach(knowledge, 0, "poet")
    teach(knowledge, 1, "coder")
    priors = knowledge.priors(prompt(2))
    assert priors.prior("poet") == pytest.approx(priors.prior("coder"))
    assert priors.prior("general") < priors.prior("poet") < 0.8
    assert priors.prior("stranger") == pytest.approx(FIRST_GUESS)


def test_a_route_teaches_the_next_request_of_its_kind() -> None:
    knowledge = Knowledge()
    route = Route(knowledge.priors(prompt(0)))
    for _ in range(10):
        route.note({"poet": HIT, "general": MISS})
    assert Route(knowledge.priors(prompt(0, 1))).choose(DRAFTERS, 1) == ("poet",)


def test_how_far_paths_are_right_is_known_per_kind() -> None:
    knowledge = Knowledge()
    for _ in range(20):
        knowledge.priors(prompt(0)).note_hit_rate(5, 5)
        knowledge.priors(prompt(1)).note_hit_rate(0, 5)
        knowledge.priors(prompt(1)).note_hit_rate(0, 0)
    assert knowledge.priors(prompt(0)).hit_rate > 0.95
    assert knowledge.priors(prompt(1)).hit_rate < 0.2


def test_one_surprise_does_not_turn_what_a_kind_taught() -> None:
    knowledge = Knowledge()
    teach(knowledge, 0, "poet")
    knowledge.priors(prompt(0)).note("poet", MISS)
    assert knowledge.priors(prompt(0)).prior("poet") > 0.7


def test_kinds_are_bounded_and_the_least_used_make_room() -> None:
    knowledge = Knowledge()
    teach(knowledge, 0, "poet", count=3)
    once = knowledge.priors(prompt(1))
    for kind in range(2, 2 * CLUSTERS_MAX):
        once_too = knowledge.priors(prompt(kind))
    assert knowledge.cluster_count == CLUSTERS_MAX
    assert knowledge.priors(prompt(0)).prior("poet") > 0.7
    once.note("poet", HIT)
    assert 0.0 < once.prior("poet") < 1.0
    assert 0.0 < once_too.hit_rate < 1.0


def test_knowledge_fades_so_that_a_drafter_that_changed_is_believed() -> None:
    knowledge = Knowledge()
    knowledge.take_changes(100.0)
    teach(knowledge, 0, "poet", count=100)
    knowledge.take_changes(100.0 + 5 * HALF_LIFE_S)
    assert knowledge.priors(prompt(0)).prior("poet") > 0.6, "what is old is known until something newer is"
    teach(knowledge, 0, "coder", count=20)
    assert Route(knowledge.priors(prompt(0))).choose(DRAFTERS, 1) == ("coder",)


def test_what_nobody_asked_for_long_is_forgotten() -> None:
    knowledge = Knowledge()
    teach(knowledge, 0, "poet", count=1)
    knowledge.take_changes(0.0)
    knowledge.take_changes(10 * HALF_LIFE_S)
    assert knowledge.cluster_count == 0


# -- several schedulers


@dataclass
class Place:
    """The common place, and the schedulers that exchange through it."""

    writers: int = 2
    shared: Shared | None = None
    now: float = 1000.0
    schedulers: list[Knowledge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedulers = [Knowledge(f"s{index}") for index in range(self.writers)]

    def take(self, index: int) -> Changes:
        return self.schedulers[index].take_changes(self.now)

    def exchange(self, index: int, answered: bool = True) -> None:
        """Changes arrive; without an answer the scheduler does not know that they did."""
        self.shared = merged(self.shared, self.take(index), self.now)
        if answered:
            self.schedulers[index].absorb(self.shared)

    def settle(self) -> None:
        """Everybody sends what was under way, what came after it, and hears of the others."""
        for _ in range(3):
            for index in range(self.writers):
                self.exchange(index)


def totals(shared: Shared | None) -> dict[tuple[int, str, str], float]:
    """Hits and tries per kind and tally, over all clusters of the kind."""
    assert shared is not None
    found: Counter[tuple[int, str, str]] = Counter()
    for cluster in shared.clusters.values():
        kind = max(range(3), key=lambda kind: float(cluster.total @ embed(prompt(kind))))
        for name, tally in cluster.tallies.items():
            found[kind, name, "hits"] += tally.hits
            found[kind, name, "tries"] += tally.tries
    return dict(found)


KINDS = st.integers(0, 2)
WHO = st.integers(0, 1)
NOTES = st.tuples(WHO, KINDS, st.sampled_from(DRAFTERS), st.integers(0, 5), st.integers(1, 5))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), NOTES),
        st.tuples(st.sampled_from(["exchange", "no answer", "no arrival"]), WHO),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_whatever_is_lost_on_the_way_each_thing_counts_once_and_all_know_the_same(
    events: list[tuple[str, object]],
) -> None:
    place = Place()
    noted: Counter[tuple[int, str, str]] = Counter()
    for what, value in events:
        match what, value:
            case "note", (int(who), int(kind), str(drafter), int(few), int(many)):
                place.schedulers[who].priors(prompt(kind)).note(drafter, Credit(min(few, many), many))
                noted[kind, drafter, "hits"] += min(few, many)
                noted[kind, drafter, "tries"] += many
            case "exchange", int(who):
                place.exchange(who)
            case "no answer", int(who):
                place.exchange(who, answered=False)
            case "no arrival", int(who):
                place.take(who)
    place.settle()
    assert totals(place.shared) == pytest.approx(noted)
    one, other = place.schedulers
    for kind in range(3):
        assert rates(one, kind) == pytest.approx(rates(other, kind))


@settings(max_examples=40, deadline=None)
@given(st.lists(NOTES, max_size=30), st.permutations([0, 1]))
def test_who_exchanges_first_does_not_matter(notes: list[tuple[int, int, str, int, int]], order: list[int]) -> None:
    places = [Place(), Place()]
    for place, turns in zip(places, ([0, 1], order), strict=True):
        for who, kind, drafter, few, many in notes:
            place.schedulers[who].priors(prompt(kind)).note(drafter, Credit(min(few, many), many))
        for who in turns:
            place.exchange(who)
        place.settle()
    for kind in range(3):
        expected = rates(places[0].schedulers[0], kind)
        assert rates(places[1].schedulers[0], kind) == pytest.approx(expected)
        assert rates(places[1].schedulers[1], kind) == pytest.approx(rates(places[0].schedulers[1], kind))


def test_clusters_that_two_schedulers_made_of_one_kind_become_one() -> None:
    place = Place()
    for who, good in ((0, "poet"), (1, "poet")):
        teach(place.schedulers[who], 0, good)
        teach(place.schedulers[who], 1, "coder")
    place.settle()
    assert place.shared is not None
    assert len(place.shared.clusters) == 2
    assert [knowledge.cluster_count for knowledge in place.schedulers] == [2, 2]


def test_clusters_that_have_become_alike_are_joined_under_the_more_used_ones_name() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet", count=3)
    teach(place.schedulers[1], 0, "poet", count=5)
    few, many = (place.take(index).added[f"s{index}/1"].seen for index in (0, 1))
    teacher = Knowledge("s2")
    teach(teacher, 1, "coder")
    found = merged(Shared("epoch", 0.0, {"few": few, "many": many}), teacher.take_changes(0.0), 0.0)
    assert list(found.clusters) == ["many", "s2/1"]
    assert found.clusters["many"].prompt_count == 8
    assert found.clusters["many"].tallies["poet"] == Tally(32, 40)


def test_a_new_scheduler_starts_from_what_the_others_know() -> None:
    place = Place(writers=3)
    teach(place.schedulers[0], 0, "poet")
    place.exchange(0)
    place.exchange(2)
    assert rates(place.schedulers[2], 0) == pytest.approx(rates(place.schedulers[0], 0), abs=0.01)


def test_a_request_under_way_learns_on_where_its_cluster_has_been_joined_with_another() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    teach(place.schedulers[0], 1, "general")
    priors = place.schedulers[1].priors(prompt(0, 50))
    place.exchange(0)
    place.exchange(1)
    assert priors.prior("poet") > 0.7
    assert place.schedulers[1].cluster_count == 2
    priors.note("coder", Credit(30, 30))
    place.settle()
    assert place.schedulers[0].priors(prompt(0)).prior("coder") > 0.5


def test_while_the_common_place_is_away_a_scheduler_goes_on_alone_and_afterwards_all_arrives() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    place.exchange(0)
    for number in range(10):
        place.take(0)
        teach(place.schedulers[0], 1, "coder", count=1)
        assert place.schedulers[0].priors(prompt(0, number)).prior("poet") > 0.7
    assert place.schedulers[0].priors(prompt(1)).prior("coder") > 0.7
    place.settle()
    assert place.schedulers[1].priors(prompt(1)).prior("coder") > 0.7


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("later_s", [0.0, 1.0])
def test_what_the_common_place_loses_is_put_back_once(order: tuple[int, int], later_s: float) -> None:
    place = Place(writers=3)
    teach(place.schedulers[0], 0, "poet")
    teach(place.schedulers[1], 1, "coder")
    place.settle()
    before = totals(place.shared)
    place.shared = None
    for who in order:
        place.now += later_s
        place.exchange(who)
    place.exchange(2)
    assert totals(place.shared) == pytest.approx(before, rel=0.01)
    assert place.schedulers[2].priors(prompt(1)).prior("coder") > 0.7


def test_what_is_put_back_late_does_not_hide_what_is_newer() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    place.settle()
    place.shared = None
    place.now += 1
    teach(place.schedulers[0], 0, "poet")
    place.exchange(0)
    place.exchange(1)
    assert totals(place.shared)[0, PATH, "tries"] == pytest.approx(20 * 5, rel=0.01)


def test_one_who_knows_nothing_and_comes_first_after_a_loss_destroys_nothing() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    place.exchange(0)
    place.shared = None
    place.now += 1
    place.exchange(1)
    place.exchange(0)
    place.exchange(1)
    assert place.schedulers[1].priors(prompt(0)).prior("poet") > 0.7


def test_changes_whose_answer_was_lost_with_the_data_are_counted_once() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    place.exchange(0, answered=False)
    place.exchange(1)
    place.shared = None
    place.now += 1
    place.exchange(1)
    place.exchange(0)
    assert totals(place.shared)[0, PATH, "tries"] == pytest.approx(10 * 5, rel=0.01)


def test_shared_knowledge_fades_by_the_common_places_clock() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet", count=100)
    place.exchange(0)
    place.now += 5 * HALF_LIFE_S
    teach(place.schedulers[1], 0, "coder", count=20)
    place.exchange(1)
    assert Route(place.schedulers[1].priors(prompt(0))).choose(DRAFTERS, 1) == ("coder",)


def test_writers_that_left_are_forgotten() -> None:
    shared: Shared | None = None
    for number in range(WRITERS_MAX + 20):
        knowledge = Knowledge(f"s{number}")
        teach(knowledge, number % 3, "poet", count=1)
        shared = merged(shared, knowledge.take_changes(0.0), 0.0)
    assert shared is not None
    assert list(shared.taken) == [f"s{number}" for number in range(20, WRITERS_MAX + 20)]


def test_nothing_new_changes_nothing() -> None:
    place = Place()
    teach(place.schedulers[0], 0, "poet")
    place.settle()
    assert place.shared is merged(place.shared, place.take(1), place.now + 1)
