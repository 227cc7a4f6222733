"""Groups that take turns at a verifier: as many as the time models say, and never in one batch."""

from __future__ import annotations

from harness import Mesh

from cosine.core import events as ev
from cosine.core.timing import LineModel
from cosine.core.turns import turn_count


def test_turns_are_taken_where_drafting_takes_longer_than_the_fixed_part_of_a_pass() -> None:
    cheap, dear = LineModel(base_ms=2.0, slope_ms=0.5), LineModel(base_ms=25.0, slope_ms=0.1)
    assert turn_count(8, 4, cheap, rows=5.0, draft_ms=20.0) > 1
    assert turn_count(8, 4, dear, rows=5.0, draft_ms=10.0) == 1


def test_there_are_never_more_turns_than_requests_or_allowed() -> None:
    cheap = LineModel(base_ms=0.1, slope_ms=1.0)
    assert turn_count(1, 4, cheap, rows=5.0, draft_ms=50.0) == 1
    assert turn_count(3, 4, cheap, rows=5.0, draft_ms=50.0) <= 3
    assert turn_count(16, 4, cheap, rows=5.0, draft_ms=500.0) <= 4


def test_more_turns_never_predict_a_longer_cycle() -> None:
    for base_ms in (0.5, 5.0, 25.0):
        verify = LineModel(base_ms=base_ms, slope_ms=0.2)
        for draft_ms in (1.0, 10.0, 60.0):
            count = turn_count(12, 6, verify, rows=5.0, draft_ms=draft_ms)
            pass_ms = verify.predict(12 / count * 5.0)
            cycle_ms = draft_ms + pass_ms if count == 1 else max(count * pass_ms, draft_ms + pass_ms)
            assert cycle_ms <= draft_ms + verify.predict(60.0) + 1e-9


def test_one_group_is_verified_while_another_drafts() -> None:
    mesh = Mesh()
    mesh.scheduler.seats["verifier"].verify = LineModel(base_ms=0.01, slope_ms=1.0, weight=1e6)
    texts = [mesh.ask(f"r{number}", (number, 7), 40, strategy="spin") for number in range(6)]
    mesh.run()
    assert [text.tokens for text in texts] == [text.plain for text in texts]
    batches = [command for command in mesh.sent if isinstance(command, ev.SendBatch)]
    assert 1 < max(len(batch.items) for batch in batches) < 6
