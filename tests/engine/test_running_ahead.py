"""Running ahead changes no answer: the same dialogue with and without it, and what it saves where a guess was right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.plan import DraftItem
from cosine.core.running_ahead import AHEAD_MAX, best_path
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, chain
from cosine.engine.base import EngineLimits, Logits, Segment
from cosine.engine.drafting import DraftResult, draft
from cosine.engine.running_ahead import RunningAhead
from cosine.engine.toy import VOCAB_SIZE, ToyEngine
from cosine.engine.verifying import Status

SESSIONS = ("a", "b", "c")
LIMITS = EngineLimits(sessions_max=8, tokens_max=24)
WARM = Sampling(temperature=1.0, seed=5)
SURPRISE = DraftItem("d", 0, (1,))
Sequences = dict[str, list[int]]


class Counting(ToyEngine):
    """A toy that counts its forward passes and their rows."""

    def __init__(self, limits: EngineLimits = LIMITS) -> None:
        super().__init__("toy:seed=1,own=7,skill=0.8", "", limits)
        self.pass_count = 0
        self.row_count = 0

    def forward(self, segments: Sequence[Segment], stop: Callable[[], bool] | None = None) -> Logits:
        self.pass_count += 1
        self.row_count += sum(len(part.token_ids) + len(part.tree) for part in segments)
        return super().forward(segments, stop)


def context(session_id: str) -> list[int]:
    return [*session_id.encode(), 7, 9]


@st.composite
def an_item(draw: st.DrawFn, session_id: str, told: list[int], last: DraftResult | None) -> DraftItem:
    """A step as fusion would ask it, or as somebody else might: on the own path, beside it, or further back."""
    own = best_path(last.tree) if last is not None else []
    follow = own[: draw(st.integers(0, len(own)))] if draw(st.integers(0, 3)) else []
    other = draw(st.lists(st.integers(0, 255), max_size=1 if follow else 2))
    base = draw(st.sampled_from([len(told), len(told), len(told), len(told) // 2, 0]))
    tokens = [*told[base:], *follow, *other] or [*own[:1], 1][:1]
    seeded = draw(st.booleans()) and draw(st.booleans())
    return DraftItem(
        session_id,
        base,
        tuple(tokens),
        step_count=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 3)),
        beam=draw(st.sampled_from([1, 1, 2])),
        sampling=draw(st.sampled_from([GREEDY, GREEDY, GREEDY, WARM])),
        value_min=draw(st.sampled_from([0.0, 0.0, 0.2])),
        tree=chain(own[:1], [0.5]) if seeded and own else EMPTY,
        run_ahead=draw(st.integers(0, 3)) > 0,
    )


def talk(
    data: st.DataObject, with_ahead: RunningAhead, without: ToyEngine, check: Callable[[DraftResult, DraftResult], None]
) -> None:
    """A dialogue of steps, idle time and closings; `check` sees both answers to every item."""
    told: Sequences = {}
    last: dict[str, DraftResult] = {}
    for _ in range(data.draw(st.integers(1, 8), "steps")):
        names = data.draw(
            st.lists(st.sampled_from(SESSIONS), min_size=1, max_size=without.limits.sessions_max, unique=True),
            "sessions",
        )
        items = []
        for name in names:
            if name not in told:
                items.append(DraftItem(name, 0, tuple(context(name)), run_ahead=True))
            else:
                items.append(data.draw(an_item(name, told[name], last.get(name)), name))
        answers = with_ahead.draft(items)
        with_ahead.foresight._right = 1.0  # run ahead, whatever came of it so far
        for item, answer, expected in zip(items, answers, draft(without, items), strict=True):
            check(answer, expected)
            told[item.session_id] = [*told.get(item.session_id, [])[: item.base_length], *item.token_ids]
            last[item.session_id] = expected
            if expected.status is not Status.OK:
                told.pop(item.session_id)
        for _ in range(data.draw(st.integers(0, AHEAD_MAX + 1), "idle")):
            waiting = data.draw(st.sampled_from([[], items, [SURPRISE]]), "waiting")
            with_ahead.idle(lambda waiting=waiting: waiting)
        if not data.draw(st.integers(0, 5), "closing"):
            with_ahead.engine.close(names)
            without.close(names)
            for name in names:
                told.pop(name, None)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_answers_are_the_same_as_without(data: st.DataObject) -> None:
    def check(answer: DraftResult, expected: DraftResult) -> None:
        assert answer == expected

    talk(data, RunningAhead(Counting()), Counting(), check)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_trees_are_the_same_where_sessions_push_one_another_out(data: st.DataObject) -> None:
    """Which one goes depends on which was used last, and running ahead is a use; what is answered does not."""
    small = replace(LIMITS, sessions_max=2)

    def check(answer: DraftResult, expected: DraftResult) -> None:
        if answer.status is expected.status is Status.OK:
            assert answer == expected

    talk(data, RunningAhead(Counting(small)), Counting(small), check)


def follow(ahead: RunningAhead, engine: Counting, steps: int, idle: bool, **how: int) -> tuple[int, list[int]]:
    """Passes inside steps, and the text, of one session that always goes on from its own path."""
    told = context("a")
    item = DraftItem("a", 0, tuple(told), run_ahead=True, **how)
    inside = 0
    for _ in range(steps):
        before = engine.pass_count
        (answer,) = ahead.draft([item])
        inside += engine.pass_count - before
        own = best_path(answer.tree)
        item = replace(item, base_length=len(told), token_ids=tuple(own))
        told += own
        while idle and ahead.idle():
            pass
    return inside, told


@pytest.mark.parametrize("how", [{}, {"width": 3}, {"step_count": 3}, {"step_count": 2, "width": 2}], ids=str)
def test_a_path_that_goes_on_as_guessed_needs_no_pass_inside_its_steps(how: dict[str, int]) -> None:
    without, with_idle = Counting(), Counting()
    depth = how.get("step_count", 1)
    passes, text = follow(RunningAhead(without), without, 4, idle=False, **how)
    ahead = RunningAhead(with_idle)
    saved, same = follow(ahead, with_idle, 4, idle=True, **how)
    assert passes == 4 * depth
    assert saved == depth, "only the first step is a surprise"
    assert text == same
    assert ahead.foresight.skipped_count == 3 * depth
    assert ahead.foresight.pass_count == 4 * depth


def test_a_pass_that_a_step_makes_useless_is_given_up_and_one_that_it_needs_goes_on() -> None:
    engine = Counting()
    ahead = RunningAhead(engine)
    items = [DraftItem(name, 0, tuple(context(name)), run_ahead=True) for name in ("a", "b")]
    following = [
        replace(item, base_length=3, token_ids=tuple(best_path(answer.tree)))
        for item, answer in zip(items, ahead.draft(items), strict=True)
    ]
    for waiting in ([SURPRISE], [following[0], SURPRISE], [replace(following[1], token_ids=(0, 0))], items):
        assert ahead.idle(lambda waiting=waiting: waiting)
    assert ahead.foresight.pass_count == 0
    assert ahead.idle(lambda: following)
    assert ahead.foresight.pass_count == 1
    assert not ahead.idle()


def stop_after(count: int) -> Callable[[str], bool]:
    """Says true from the question after so many on."""
    answers = iter([False] * count)
    return lambda _session_id: next(answers, True)


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("idle_count", [0, 1, 4])
def test_a_step_is_given_up_between_its_passes_as_without_and_leaves_nothing_wrong(count: int, idle_count: int) -> None:
    engine, plain = Counting(), Counting()
    ahead = RunningAhead(engine)
    item = DraftItem("a", 0, tuple(context("a")), step_count=3, run_ahead=True)
    (first,) = ahead.draft([item])
    draft(plain, [item])
    for _ in range(idle_count):
        ahead.idle()
    following = replace(item, base_length=3, token_ids=tuple(best_path(first.tree)))
    answers = ahead.draft([following], stop_after(count))
    assert answers == draft(plain, [following], stop_after(count))
    assert (answers[0].status is Status.CANCELLED) == (count < 3)
    assert not ahead.idle() or count == 3
    again = replace(following, token_ids=(*following.token_ids[:1], 5))
    assert ahead.draft([again]) == draft(plain, [again])


def beside(item: DraftItem, answer: DraftResult) -> DraftItem:
    """A step that goes on from another token than the best guess."""
    return replace(item, base_length=3, token_ids=((best_path(answer.tree)[0] + 1) % VOCAB_SIZE,))


def test_sessions_run_ahead_together_and_are_answered_beside_others() -> None:
    engine, plain = Counting(), Counting()
    ahead = RunningAhead(engine)
    items = [DraftItem(name, 0, tuple(context(name)), run_ahead=True) for name in ("a", "b")]
    first, second = ahead.draft(items)
    assert ahead.idle()
    assert not ahead.idle()
    assert (engine.pass_count, ahead.foresight.pass_count) == (2, 1)
    rows = engine.row_count
    following = [replace(items[0], base_length=3, token_ids=tuple(best_path(first.tree))), beside(items[1], second)]
    found = ahead.draft(following)
    assert (engine.pass_count, engine.row_count - rows) == (3, 1), "one row, of the session that was not foreseen"
    draft(plain, items)
    assert found == draft(plain, following)


def test_a_closed_session_is_not_run_ahead_and_leaves_nothing() -> None:
    engine = Counting()
    ahead = RunningAhead(engine)
    ahead.draft([DraftItem("a", 0, (1, 2), run_ahead=True)])
    ahead.engine.close(["a"])
    assert not ahead.idle()
    assert not ahead.foresight.rides("a")
    assert not engine.tokens("a")


def test_no_more_sessions_are_held_than_the_engine_holds() -> None:
    ahead = RunningAhead(Counting(replace(LIMITS, sessions_max=2)))
    for name in SESSIONS:
        ahead.draft([DraftItem(name, 0, (1, 2), run_ahead=True)])
    assert [name for name in SESSIONS if ahead.foresight.rides(name)] == ["b", "c"]


def test_a_full_session_is_not_run_ahead() -> None:
    engine = Counting(replace(LIMITS, tokens_max=4))
    ahead = RunningAhead(engine)
    ahead.draft([DraftItem("a", 0, (1, 2, 3), run_ahead=True)])
    assert ahead.idle()
    assert not ahead.idle()
    assert len(engine.tokens("a")) == 4
