"""Groups of requests that take turns at a verifier: while one is verified, another drafts (micro-batches of SPIN,
arXiv 2503.15921; the result pool of Minions, arXiv 2402.15678).

Turns hide drafting but pay the fixed part of a forward pass once per group, so their number follows the time models.
"""

from __future__ import annotations

from cosine.core.timing import LineModel


def turn_count(session_count: int, turns_max: int, verify: LineModel, rows: float, draft_ms: float) -> int:
    """The number of groups, 1 to `turns_max`, with the shortest predicted cycle over all sessions.

    A session has `rows` rows to verify; a group drafts for `draft_ms`. With one group a cycle is drafting and then
    verifying; with more it is whatever takes longer, all groups' passes or one group's drafting and pass.
    """
    best, best_ms = 1, draft_ms + verify.predict(session_count * rows)
    for count in range(2, min(turns_max, session_count) + 1):
        pass_ms = verify.predict(session_count / count * rows)
        cycle_ms = max(count * pass_ms, draft_ms + pass_ms)
        if cycle_ms < best_ms:
            best, best_ms = count, cycle_ms
    return best
