"""When to try again: for ever after progress, never where it cannot help, at the door when told to."""

from __future__ import annotations

import pytest

from cosine.client.persistence import Persistence, RetryPolicy, transient
from cosine.core.errors import BadRequest, Cancelled, Expired, Full, MeshError, Mismatch, NotFound, Unavailable

POLICY = RetryPolicy(tries_max=3, full_tries_max=2, first_delay_s=0.1, last_delay_s=0.3)
AWAY = Unavailable("UNAVAILABLE", "gone")


def test_delays_double_up_to_the_last() -> None:
    persistence = Persistence(POLICY)
    assert [persistence.delay_after(AWAY, 0.5) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_failures_in_a_row_are_bounded_and_progress_resets_them() -> None:
    persistence = Persistence(POLICY)
    for _ in range(4):
        persistence.delay_after(AWAY, 0.5)
        persistence.progressed()
    for _ in range(3):
        persistence.delay_after(AWAY, 0.5)
    with pytest.raises(Unavailable):
        persistence.delay_after(AWAY, 0.5)


def test_a_refusal_is_followed_by_the_delay_it_names() -> None:
    persistence, full = Persistence(POLICY), Full("ADMISSION_FULL", "later", retry_delay_ms=500)
    assert [persistence.delay_after(full, 0.0) for _ in range(2)] == [0.5, 0.5]
    with pytest.raises(Full):
        persistence.delay_after(full, 0.0)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (AWAY, True),
        (Cancelled("CANCELLED", "shed"), True),
        (Cancelled("TAKEN_OVER", "resumed elsewhere"), False),
        (MeshError("INTERNAL", "Received RST_STREAM"), True),
        (MeshError("INTERNAL", "internal error 1", {"error_id": "1"}), False),
        (MeshError("UNIMPLEMENTED", "?"), False),
        (BadRequest("STOP", "?"), False),
        (NotFound("UNKNOWN_REQUEST", "?"), False),
        (Mismatch("TOKENIZER_MISMATCH", "?"), False),
        (Expired("DEADLINE_EXCEEDED", "?"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: MeshError, again: bool) -> None:
    assert transient(error) is again
