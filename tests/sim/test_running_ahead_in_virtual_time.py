"""A simulated drafter that runs ahead is a real one whose model is the recording: same answers, same passes in steps
and between them, same cache; and in the mesh it saves what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosine.core.plan import DraftItem
from cosine.core.running_ahead import AHEAD_MAX, best_path
from cosine.core.sampling import GREEDY, Sampling
from cosine.core.tree import EMPTY, TokenTree, chain
from cosine.engine.drafting import DraftResult
from cosine.engine.running_ahead import RunningAhead
from cosine.engine.verifying import Status
from cosine.sim.drafter import Drafter
from cosine.sim.load import closed_load
from cosine.sim.outcome import run
from cosine.sim.peers import Shape
from tests.sim.parks import DRAFTER, library, park
from tests.sim.recorded_engine import RecordedEngine

TEXTS = (3, 20, 41)
SPECIALIST = 1
WARM = Sampling(temperature=1.0, seed=5)
STEPWISE = "cosine:fusion_interval=1,lookahead=0,length=fixed,depth=4,beam=1,reading=replace"


class Pair:
    """The same drafter twice: simulated, and on an engine."""

    def __init__(self) -> None:
        self.simulated = Drafter(library(), SPECIALIST, DRAFTER, run_ahead=True)
        self.engine = RecordedEngine(library(), SPECIALIST)
        self.ahead = RunningAhead(self.engine)

    def ask(self, items: Sequence[DraftItem]) -> list[DraftResult]:
        """Both answer; the answers, once all is compared."""
        self.engine.passes.clear()
        results = self.ahead.draft(items)
        ran = self.simulated.compute(items)
        for result, guess in zip(results, ran.results, strict=True):
            assert (guess.tree is None) == guess.missed == (result.status is Status.CACHE_MISS)
            assert _columns(guess.tree or EMPTY) == _columns(result.tree)
        assert ran.seconds * 1000 == pytest.approx(self._engine_ms(), abs=1e-9)
        self.compare()
        return results

    def rest(self, waiting: Sequence[DraftItem] = ()) -> bool:
        """Both use a moment in which nobody asks, or in which others begin to; False where there is nothing to do."""
        self.engine.passes.clear()
        went_on = self.ahead.idle(lambda: waiting)
        unasked = self.simulated.idle()
        assert (unasked is not None) == went_on
        if unasked is not None:
            assert unasked.seconds * 1000 == pytest.approx(self._engine_ms())
            unasked.end(unasked.wanted(waiting))
        self.compare()
        return went_on

    def close(self, *names: str) -> None:
        """Both forget sessions."""
        self.ahead.engine.close(names)
        self.simulated.close(names)

    def compare(self) -> None:
        """Both hold the same."""
        for name in map(_name, TEXTS):
            context = self.simulated._contexts.get(name)
            assert list(self.engine.tokens(name)) == ([] if context is None else context.token_ids)
            assert list(self.ahead.engine.tokens(name)) == self.simulated._held(name)

    def always_right(self) -> None:
        """Both run ahead, whatever came of it so far."""
        self.simulated.foresight._right = self.ahead.foresight._right = 1.0

    def _engine_ms(self) -> float:
        return sum(DRAFTER.forward_ms(rows, cached) for rows, cached in self.engine.passes)


def _columns(tree: TokenTree) -> tuple[object, ...]:
    return tree.token_ids, tree.parents, tree.confidences


def _name(number: int) -> str:
    return f"s{number}"


def first_step(number: int, **how: object) -> DraftItem:
    """A whole context, up to a few tokens behind its prompt."""
    script = library().scripts[number]
    told = script.token_ids[: script.prompt_length + 3]
    return replace(DraftItem(_name(number), 0, told, run_ahead=True), **how)  # type: ignore[arg-type]  # a dict of keywords has one type of values


@st.composite
def an_item(draw: st.DrawFn, number: int, told: Sequence[int], last: DraftResult) -> DraftItem:
    """A step as fusion would ask it, or as somebody else might: on the own path, on the text, beside, further back."""
    own, truth = best_path(last.tree), library().scripts[number].token_ids[len(told) : len(told) + 3]
    follow = draw(st.sampled_from([own, own, truth, [1, 2]]))
    follow = follow[: draw(st.integers(1, 3))] or [7]
    base = draw(st.sampled_from([len(told)] * 4 + [len(told) - 2, 0]))
    return DraftItem(
        _name(number),
        base,
        (*told[base:], *follow),
        step_count=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 3)),
        beam=draw(st.sampled_from([1, 1, 2])),
        value_min=draw(st.sampled_from([0.0, 0.0, 0.2])),
        sampling=draw(st.sampled_from([GREEDY] * 5 + [WARM])),
        tree=chain(own[:1], [0.5]) if own and draw(st.integers(0, 5)) == 0 else EMPTY,
        run_ahead=draw(st.integers(0, 3)) > 0,
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_dialogue_with_it_is_a_dialogue_with_the_engine(data: st.DataObject) -> None:
    pair = Pair()
    told: dict[int, tuple[int, ...]] = {}
    last: dict[int, DraftResult] = {}
    for _ in range(data.draw(st.integers(1, 6), "steps")):
        numbers = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, unique=True), "texts")
        items = [
            data.draw(an_item(number, told[number], last[number])) if number in told else first_step(number)
            for number in numbers
        ]
        for number, item, result in zip(numbers, items, pair.ask(items), strict=True):
            told[number] = (*told.get(number, ())[: item.base_length], *item.token_ids)
            last[number] = result
            if result.status is not Status.OK:
                del told[number]
        if data.draw(st.booleans(), "eager"):
            pair.always_right()
        for _ in range(data.draw(st.integers(0, AHEAD_MAX + 1), "idle")):
            pair.rest(data.draw(st.sampled_from([(), items, (first_step(30),)]), "waiting"))
        if not data.draw(st.integers(0, 5), "closing"):
            pair.close(*map(_name, numbers))
            told = {number: tokens for number, tokens in told.items() if number not in numbers}


def test_a_step_that_goes_on_as_foreseen_takes_no_time() -> None:
    pair = Pair()
    item = first_step(3, step_count=2)
    (answer,) = pair.ask([item])
    while pair.rest():
        pass
    following = replace(item, base_length=len(item.token_ids), token_ids=tuple(best_path(answer.tree)))
    assert pair.simulated.compute([following]).seconds == 0.0


def test_drafters_that_run_ahead_make_token_by_token_fusion_faster_and_no_text_another() -> None:
    figures = {}
    for run_ahead in (False, True):
        row, mesh = run(park(), library(), STEPWISE, closed_load(1, 8, 48), Shape(run_ahead=run_ahead))
        skipped_count = sum(peer.drafter.foresight.skipped_count for peer in mesh.drafters.values())
        unasked_s = sum(peer.device.usage.unasked_s for peer in mesh.drafters.values())
        figures[run_ahead] = (row.latency_ms, skipped_count, unasked_s)
    assert figures[False][1:] == (0, 0.0)
    assert figures[True][1] > 0
    assert figures[True][2] > 0.0
    assert figures[True][0] < figures[False][0]


def test_a_mesh_of_drafters_that_run_ahead_repeats_itself() -> None:
    rows = [run(park(), library(), STEPWISE, closed_load(3, 6, 32), Shape(run_ahead=True))[0] for _ in range(2)]
    assert rows[0] == rows[1]


def test_without_exchanges_in_between_there_is_nothing_to_run_ahead_of() -> None:
    load, shapes = closed_load(2, 4, 32), (Shape(), Shape(run_ahead=True))
    rows = [run(park(), library(), "cosine", load, shape)[0] for shape in shapes]
    assert rows[0] == rows[1]
