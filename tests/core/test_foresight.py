"""What a drafter runs ahead, when that answers a step, and when it is dropped: the rules, on a cache that obeys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cosine.core.picking import RowRule
from cosine.core.plan import DraftItem
from cosine.core.running_ahead import AHEAD_MAX, Children, Expansion, Foresight, Part, best_path
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, TokenTree, chain

ASKED = DraftItem("a", 0, (1, 2), 3, 2, 1, run_ahead=True)
ANSWER = TokenTree((6, 5, 8), (-1, -1, 1), (0.3, 0.6, 0.9), (1, 1, 1))  # its best path is 5, 8
NEXT = replace(ASKED, base_length=2, token_ids=(5, 8))
FOUND: Children = ([7, 9], [0.8, 0.1])


class Played:
    """A drafter without a model: its cache holds what it runs, and it finds and guesses what it is told."""

    def __init__(self, foresight: Foresight | None = None) -> None:
        self.foresight = foresight or Foresight()
        self.cache: dict[str, list[int]] = {}

    def held(self, session_id: str) -> Sequence[int]:
        return self.cache.get(session_id, [])

    def step(self, *items: DraftItem, answer: TokenTree | None = ANSWER) -> None:
        """A step of one pass per session, of which nothing is known; all get the same answer."""
        self.foresight.begin(items)
        for item in items:
            self.foresight.answer(Part(item.session_id, item.base_length, item.token_ids), (), bare=True)
            self._run(item)
        self.foresight.end([(item, answer) for item in items], self.held)

    def rest(self, found: Children = FOUND) -> list[Expansion]:
        """Runs the next pass ahead, to its end."""
        parts = self.foresight.next_pass(self.held)
        for part in parts:
            self._run(part)
        if parts:
            self.foresight.learn({part.session_id: found for part in parts})
        return parts

    def answer(self, part: Part, bare: bool = True) -> Children | None:
        return self.foresight.answer(part, self.held(part.session_id), bare)

    def shown(self, session_id: str = "a") -> Sequence[int]:
        return self.foresight.shown(session_id, self.held(session_id))

    def _run(self, part: DraftItem | Part) -> None:
        self.cache[part.session_id] = [*self.held(part.session_id)[: part.base_length], *part.token_ids]


@pytest.fixture
def played() -> Played:
    """A drafter that has answered a step."""
    drafter = Played()
    drafter.step(ASKED)
    return drafter


def test_the_best_path_goes_by_confidence_and_then_by_token() -> None:
    assert best_path(TokenTree((9, 4, 3, 8), (-1, -1, 1, 0), (0.4, 0.4, 0.1, 1.0), (1, 1, 1, 1))) == [4, 3]
    assert best_path(EMPTY) == []


def test_the_end_of_the_best_path_is_run_and_then_from_best_child_to_best_child(played: Played) -> None:
    assert played.rest() == [Expansion("a", 2, (5, 8), RowRule(GREEDY, 4), 2)]
    assert played.rest() == [Expansion("a", 4, (7,), RowRule(GREEDY, 5), 2)]
    assert played.rest() == [Expansion("a", 5, (7,), RowRule(GREEDY, 6), 2)]
    assert not played.rest(), "a step is three passes deep"
    assert played.foresight.pass_count == 3


def test_of_a_path_that_is_cached_the_last_token_is_run_again(played: Played) -> None:
    played.cache["a"] += [5, 8]
    assert played.rest() == [Expansion("a", 3, (8,), RowRule(GREEDY, 4), 2)]


@pytest.mark.parametrize(
    ("item", "pass_count"),
    [(replace(ASKED, step_count=9), AHEAD_MAX), (replace(ASKED, step_count=2), 2), (replace(ASKED, beam=2), 1)],
)
def test_no_more_is_run_than_may_be_needed(item: DraftItem, pass_count: int) -> None:
    drafter = Played()
    drafter.step(item)
    while drafter.rest():
        pass
    assert drafter.foresight.pass_count == pass_count


@pytest.mark.parametrize(
    ("item", "answer"), [(ASKED, None), (ASKED, EMPTY), (replace(ASKED, run_ahead=False), ANSWER)], ids=str
)
def test_nothing_is_run_behind_no_answer_or_unasked(item: DraftItem, answer: TokenTree | None) -> None:
    drafter = Played()
    drafter.step(item, answer=answer)
    assert not drafter.rest()
    assert not drafter.foresight.rides("a")


def test_a_path_ends_where_it_has_no_children(played: Played) -> None:
    assert played.rest(([], []))
    assert not played.rest()


def test_nothing_is_run_beyond_the_room_of_a_session() -> None:
    drafter = Played(Foresight(tokens_max=4))
    drafter.step(ASKED)
    assert drafter.rest()
    assert not drafter.rest()


def test_a_step_along_the_path_is_answered_by_what_was_found(played: Played) -> None:
    played.rest()
    played.rest(([3], [0.5]))
    assert played.shown() == [1, 2]
    played.foresight.begin([NEXT])
    assert played.answer(Part("a", 2, (5, 8))) == FOUND
    assert played.shown() == [1, 2, 5, 8]
    assert played.answer(Part("a", 4, (7,))) == ([3], [0.5])
    assert played.answer(Part("a", 5, (3,))) is None, "it has not been run"
    assert played.foresight.skipped_count == 2
    assert not played.foresight.rides("a")


@pytest.mark.parametrize(
    "part", [Part("a", 2, (5, 9)), Part("a", 2, (5,)), Part("a", 2, (5, 8, 1)), Part("a", 0, (1,))]
)
def test_a_step_beside_the_path_is_run_and_ends_running_ahead(played: Played, part: Part) -> None:
    played.rest()
    assert played.foresight.rides("a")
    assert played.answer(part) is None
    assert not played.foresight.rides("a")
    assert played.shown() == played.held("a")
    assert not played.rest()


def test_a_part_that_does_not_stand_alone_is_run(played: Played) -> None:
    played.rest()
    assert played.answer(Part("a", 2, (5, 8)), bare=False) is None
    assert not played.foresight.rides("a")


@pytest.mark.parametrize("change", [{"sampling": Sampling(temperature=1.0, seed=5)}, {"width": 3}], ids=str)
def test_children_picked_otherwise_or_too_few_answer_nothing(played: Played, change: dict[str, object]) -> None:
    played.rest()
    played.foresight.begin([replace(NEXT, **change)])  # type: ignore[arg-type]  # a dict of keywords has one type of values
    assert played.answer(Part("a", 2, (5, 8))) is None


def test_what_was_found_goes_on_to_the_next_answer_until_it_is_overwritten(played: Played) -> None:
    played.rest()
    played.rest(([3], [0.5]))
    played.foresight.begin([NEXT])
    assert played.answer(Part("a", 2, (5, 8))) == FOUND
    played.foresight.end([(NEXT, chain([7], [0.8]))], played.held)
    assert played.rest() == [Expansion("a", 5, (3,), RowRule(GREEDY, 6), 2)], "behind 7 it is known"
    following = replace(NEXT, base_length=4, token_ids=(7,))
    played.foresight.begin([following])
    assert played.answer(Part("a", 4, (7,))) == ([3], [0.5])
    played.foresight.end([(following, chain([4, 8], [0.8, 0.9]))], played.held)
    assert played.rest() == [Expansion("a", 5, (4, 8), RowRule(GREEDY, 7), 2)], "the end of another path"
    played.foresight.begin([replace(following, base_length=5, token_ids=(4,))])
    assert played.answer(Part("a", 5, (4,))) is None, "what was found there was behind 3"


@pytest.mark.parametrize(("answer", "part"), [(None, Part("a", 4, (7,))), (ANSWER, Part("a", 2, (5, 8)))])
def test_what_was_found_is_dropped_without_an_answer_and_before_its_end(
    played: Played, answer: TokenTree | None, part: Part
) -> None:
    played.rest()
    played.rest()
    played.foresight.begin([NEXT])
    assert played.answer(Part("a", 2, (5, 8))) == FOUND
    played.foresight.end([(NEXT, answer)], played.held)
    assert played.answer(part) is None


def test_a_session_that_was_pushed_out_of_the_cache_is_not_run(played: Played) -> None:
    played.cache.clear()
    assert not played.rest()


def test_a_pass_goes_on_only_if_all_who_wait_need_it(played: Played) -> None:
    foreseen = played.foresight.foreseen
    assert foreseen([])
    assert foreseen([NEXT])
    assert foreseen([replace(NEXT, token_ids=(5,))])
    assert foreseen([replace(NEXT, base_length=3, token_ids=(8,))])
    assert not foreseen([replace(NEXT, token_ids=(5, 9))])
    assert not foreseen([replace(ASKED, token_ids=(5,))])
    assert not foreseen([NEXT, replace(NEXT, session_id="b")])


def test_a_closed_session_is_forgotten(played: Played) -> None:
    played.foresight.close(["a", "unknown"])
    assert not played.rest()
    assert not played.foresight.rides("a")


def test_sessions_are_run_together_while_all_will_probably_go_on_as_foreseen() -> None:
    for count, run in ((1, 1), (2, 2), (3, 0)):
        drafter = Played()
        drafter.step(*(replace(ASKED, session_id=str(number)) for number in range(count)))
        assert len(drafter.rest()) == run


def test_sessions_that_do_not_ask_are_not_in_the_way() -> None:
    drafter = Played()
    drafter.step(ASKED, *(replace(ASKED, session_id=name, run_ahead=False) for name in "bcd"))
    assert len(drafter.rest()) == 1


@pytest.mark.parametrize("answer", [ANSWER, None])
def test_steps_from_elsewhere_say_nothing_of_being_followed(played: Played, answer: TokenTree | None) -> None:
    """Those that go back, and those behind no answer."""
    played.rest()
    for _ in range(50):
        played.foresight.begin([NEXT])
        played.answer(Part("a", 2, (5, 8)))
        played.foresight.end([(NEXT, answer)], played.held)
        played.foresight.begin([ASKED if answer else replace(NEXT, base_length=9)])
        played.step(ASKED)
        assert played.rest()


def test_a_drafter_that_is_seldom_followed_runs_nothing_until_it_is(played: Played) -> None:
    def told(item: DraftItem, count: int) -> list[bool]:
        ran = []
        for _ in range(count):
            played.step(ASKED)
            played.foresight.begin([item])
            ran.append(bool(played.rest()))
        return ran

    wrong, right = told(replace(NEXT, token_ids=(6,)), 50), told(NEXT, 50)
    assert (wrong[0], wrong[-1], right[0], right[-1]) == (True, False, False, True)
    assert wrong == sorted(wrong, reverse=True)
    assert right == sorted(right)


def test_no_more_sessions_are_kept_than_the_cache_holds() -> None:
    drafter = Played(Foresight(sessions_max=2))
    for name in "abc":
        drafter.step(replace(ASKED, session_id=name))
    assert [name for name in "abc" if drafter.foresight.rides(name)] == ["b", "c"]
