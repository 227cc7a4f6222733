"""Placement: requests stay with their replica, new ones go where the fewest are, and nothing is forgotten or leaked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosine.core.events import DrafterFacts
from cosine.core.placement import OUTDATED_FACTOR, Placement


def facts(**models: str) -> list[DrafterFacts]:
    """Drafters by name with their models."""
    return [DrafterFacts(peer_id, model_id=model) for peer_id, model in models.items()]


def placement(**models: str) -> Placement:
    found = Placement()
    found.drafters_changed(facts(**models))
    return found


def test_schedulers_that_share_replicas_begin_with_different_ones() -> None:
    first = set()
    for number in range(20):
        up = Placement(f"scheduler-{number}")
        up.drafters_changed(facts(**{f"code{index}": "code" for index in range(10)}))
        first.add(up.assign("request", "code"))
    assert len(first) > 5


def test_a_request_stays_with_its_replica() -> None:
    up = placement(a="code", b="code")
    first = up.assign("r1", "code")
    up.assign("r2", "code")
    up.drafters_changed(facts(a="code", b="code", c="code"))
    assert [up.assign("r1", "code") for _ in range(3)] == [first] * 3


def test_a_new_request_goes_to_the_replica_with_the_fewest_and_equals_by_name() -> None:
    up = placement(c="code", a="code", b="code")
    assert [up.assign(f"r{number}", "code") for number in range(5)] == ["a", "b", "c", "a", "b"]
    up.release("r1")
    assert up.assign("r5", "code") == "b"


def test_a_new_replica_takes_the_requests_that_come_after_it() -> None:
    up = placement(a="code")
    for number in range(3):
        up.assign(f"old{number}", "code")
    up.drafters_changed(facts(a="code", b="code"))
    assert [up.assign(f"new{number}", "code") for number in range(4)] == ["b", "b", "b", "a"]


def test_requests_of_a_lost_replica_move_to_another_and_stay_there() -> None:
    up = placement(a="code", b="code")
    assert (up.assign("r1", "code"), up.assign("r2", "code")) == ("a", "b")
    up.drafters_changed(facts(b="code"))
    assert up.assign("r1", "code") == "b"
    up.drafters_changed(facts(a="code", b="code"))
    assert (up.assign("r1", "code"), up.assign("r3", "code")) == ("b", "a")


def test_a_peer_that_comes_back_with_another_model_keeps_no_request() -> None:
    up = placement(a="code", b="code")
    assert up.assign("r1", "code") == "a"
    up.drafters_changed(facts(a="sql", b="code"))
    assert (up.assign("r1", "code"), up.assign("r1", "sql"), up.count("a"), up.count("b")) == ("b", "a", 1, 1)


def test_models_are_what_can_be_had() -> None:
    up = placement(a="sql", b="code", c="sql", loner="")
    before = up.models
    up.drafters_changed(facts(a="sql"))
    assert (before, up.models) == (("code", "loner", "sql"), ("sql",))
    with pytest.raises(KeyError):
        up.assign("r1", "code")


def test_releasing_twice_or_a_stranger_changes_nothing() -> None:
    up = placement(a="code", b="code")
    up.assign("r1", "code")
    for request in ("r1", "r1", "stranger"):
        up.release(request)
    assert (up.count("a"), up.count("b"), up.count("nobody")) == (0, 0, 0)


Op = tuple[str, int | dict[str, str], str]
STEPS: st.SearchStrategy[list[Op]] = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), st.integers(0, 9), st.sampled_from("xyz")),
        st.tuples(st.just("release"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("up"), st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz")), st.just("")),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_choice_is_what_a_slow_look_at_everything_would_choose(steps: list[Op]) -> None:
    fast, up, placed = Placement(), dict[str, str](), dict[tuple[str, str], str]()
    for verb, subject, model in steps:
        if verb == "up":
            assert isinstance(subject, dict)
            gone = {peer for peer in up if subject.get(peer) != up[peer]}
            up = dict(subject)
            placed = {key: peer for key, peer in placed.items() if peer not in gone}
            fast.drafters_changed(facts(**up))
        elif verb == "release":
            placed = {key: peer for key, peer in placed.items() if key[0] != str(subject)}
            fast.release(str(subject))
        elif model in up.values():
            counts = Counter(placed.values())
            fewest = min((counts[peer], peer) for peer in up if up[peer] == model)[1]
            expected = placed.setdefault((str(subject), model), fewest)
            assert fast.assign(str(subject), model) == expected
        assert all(fast.count(peer) == Counter(placed.values())[peer] for peer in "abcdef")


def test_a_thousand_drafters_and_ten_thousand_requests_leave_no_load_uneven_and_nothing_behind() -> None:
    up = Placement()
    up.drafters_changed([DrafterFacts(f"peer{number}", model_id=f"model{number % 5}") for number in range(1000)])
    for number in range(10_000):
        up.assign(f"r{number}", f"model{number % 5}")
    assert {up.count(f"peer{number}") for number in range(1000)} == {10}
    for number in range(10_000):
        up.release(f"r{number}")
    assert {up.count(f"peer{number}") for number in range(1000)} == {0}
    held = sum(len(pool.heap) for pool in up._pools.values())
    assert held <= OUTDATED_FACTOR * 1000
    assert not up._placed
