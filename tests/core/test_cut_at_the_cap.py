"""At the verifier's bound the scheduler cuts trees as the strategy's `cut` says, through whole rounds of a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from harness import Mesh

from cosine.core import events as ev
from cosine.core.config import SchedulerConfig
from cosine.core.errors import BadRequest
from cosine.core.speculation import Cut
from cosine.core.strategy import PRESETS, parse
from cosine.core.timing import LineModel

ROWS_MAX = 24
FREE_ROWS = LineModel(base_ms=8.0, slope_ms=0.0, weight=1e12)  # every candidate pays
VALUE, LARGEST = "cosine:cut=value", "cosine"


@dataclass(frozen=True)
class Seen:
    """A batch with drafts: per strategy the sizes of the trees that were drafted and of what was verified, and the rows
    that there were for all of them."""

    drafted: dict[str, list[int]]
    verified: dict[str, list[int]]
    room: int

    def fills_its_room(self) -> bool:
        """As much is verified as there is, or as there is room for."""
        return total(self.verified) == min(self.room, total(self.drafted))

    def stepped_down(self, strategy: str) -> bool:
        """What was cut was cut to one size, and nothing larger was left alone."""
        pairs = list(zip(self.drafted[strategy], self.verified[strategy], strict=True))
        cut = [after for before, after in pairs if after < before]
        untouched = [after for before, after in pairs if after == before]
        return not cut or (max(cut) - min(cut) <= 1 and max(untouched, default=0) <= min(cut) + 1)


def total(sizes: dict[str, list[int]]) -> int:
    return sum(map(sum, sizes.values()))


class Watched(Mesh):
    """A mesh whose batches with drafts are written down."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._drafts: dict[str, int] = {}
        super().__init__(config=SchedulerConfig(batch_rows_max=ROWS_MAX))
        self.scheduler.pace.verify = self.scheduler.seats["verifier"].verify = FREE_ROWS

    def tell(self, event: ev.Event) -> None:
        if isinstance(event, ev.TreeCame):
            self._drafts[event.tree.session_id] = len(event.tree.tree)
        before = len(self.sent)
        super().tell(event)
        for command in self.sent[before:]:
            if isinstance(command, ev.SendBatch) and any(item.tree for item in command.items):
                self.seen.append(self._noted(command))

    def _noted(self, batch: ev.SendBatch) -> Seen:
        drafted: dict[str, list[int]] = {}
        verified: dict[str, list[int]] = {}
        for item in batch.items:
            live = self.scheduler._requests.session(item.session_id)
            assert live is not None
            strategy = live.strategy.name
            drafted.setdefault(strategy, []).append(self._drafts.pop(item.session_id, 0))
            verified.setdefault(strategy, []).append(len(item.tree))
        return Seen(drafted, verified, ROWS_MAX - sum(len(item.token_ids) for item in batch.items))


def played(*strategies: str) -> list[Seen]:
    """The batches of requests of these strategies, all at once, to their ends."""
    mesh = Watched()
    texts = [mesh.ask(f"r{number}", (number, 7), 40, strategy=strategy) for number, strategy in enumerate(strategies)]
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    return mesh.seen


def test_at_the_cap_the_request_with_the_most_candidates_steps_down_first() -> None:
    seen = played(*[LARGEST] * 5)
    assert all(batch.fills_its_room() for batch in seen), "no further than the cap demands"
    assert all(batch.stepped_down(LARGEST) for batch in seen)
    assert any(batch.verified != batch.drafted for batch in seen)
    assert any(batch.verified == batch.drafted for batch in seen)


def test_by_value_a_request_may_keep_more_than_one_that_gives_up_some() -> None:
    seen = played(*[VALUE] * 5)
    assert all(batch.fills_its_room() for batch in seen)
    assert not all(batch.stepped_down(VALUE) for batch in seen)


def test_both_ways_of_cutting_share_the_rows_of_a_batch() -> None:
    mixed = [batch for batch in played(*[VALUE, LARGEST] * 3) if len(batch.verified) == 2]
    assert mixed
    for batch in mixed:
        assert total(batch.verified) <= batch.room
        stepped, wanted = sum(batch.verified[LARGEST]), sum(batch.drafted[LARGEST])
        share = batch.room * len(batch.verified[LARGEST]) // sum(map(len, batch.verified.values()))
        assert stepped >= min(wanted, share), "the others leave it its share"


@pytest.mark.parametrize("name", PRESETS)
def test_only_strategies_that_predict_goodput_can_be_cut_from_the_largest(name: str) -> None:
    if PRESETS[name].adaptive:
        assert parse(f"{name}:cut=largest").cut is Cut.LARGEST
        return
    with pytest.raises(BadRequest, match="length=goodput") as caught:
        parse(f"{name}:cut=largest")
    assert caught.value.reason == "KNOBS_CONTRADICT"
