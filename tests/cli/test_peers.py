"""The table of peers: who is there, and how long their passes take, as measured and as learned."""

from __future__ import annotations

from cosine.cli.peers import MODEL_CHARS_MAX, table
from cosine.client.results import LearnedTime, Peer

VERIFIER = Peer("verifier", "v", "h:1", "target", "serving", 3, 1, base_ms=15.42, row_ms=0.7)


def scheduler(name: str, *learned: LearnedTime, state: str = "serving") -> Peer:
    return Peer("scheduler", name, "h:2", "", state, 0, 1, learned=learned)


def rows(*peers: Peer) -> list[list[str]]:
    return [line.split() for line in table(peers).splitlines()[1:]]


def test_what_a_peer_measured_and_what_was_learned_of_it_stand_in_its_row() -> None:
    assert rows(scheduler("s", LearnedTime("v", 20.0, 0.25)), VERIFIER) == [
        ["scheduler", "s", "-", "h:2", "serving", "0", "-", "-"],
        ["verifier", "v", "target", "h:1", "serving", "3", "15.4+0.7/row", "20+0.25/row"],
    ]


def test_several_schedulers_stand_side_by_side_and_lost_ones_are_left_out() -> None:
    lost = scheduler("c", LearnedTime("v", 9.0, 9.0), state="lost")
    shown = rows(scheduler("a", LearnedTime("v", 1.0, 2.0)), scheduler("b", LearnedTime("v", 3.0, 4.0)), lost, VERIFIER)
    assert shown[-1][-1] == "1+2/row,3+4/row"


def test_a_peer_that_measured_nothing_shows_nothing() -> None:
    assert rows(Peer("drafter", "d", "h:3", "toy", "serving", 0, 1)) == [
        ["drafter", "d", "toy", "h:3", "serving", "0", "-", "-"]
    ]


def test_a_long_model_name_keeps_its_end() -> None:
    (row,) = rows(Peer("drafter", "d", "h:3", "x" * 100 + "end", "serving", 0, 1))
    assert row[2].startswith("…")
    assert row[2].endswith("end")
    assert len(row[2]) == MODEL_CHARS_MAX
