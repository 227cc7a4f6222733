"""A request whose strategy demands more peers than there are is refused when it comes, and never after it has begun."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import DRAFTERS, Mesh, Text

from cosine.core import events as ev


@pytest.mark.parametrize(
    ("strategy", "reason", "allowed"),
    [
        ("dsi", "TOO_FEW_VERIFIERS", "at most 1 verifiers"),
        ("pipeinfer:verifiers=2", "TOO_FEW_VERIFIERS", "at most 1 verifiers"),
        (f"cosine:drafter_count={len(DRAFTERS) + 1}", "TOO_FEW_DRAFTERS", f"at most {len(DRAFTERS)} drafters"),
        (f"cosine:first_count={len(DRAFTERS) + 1}", "TOO_FEW_DRAFTERS", f"at most {len(DRAFTERS)} drafters"),
    ],
)
def test_it_is_refused_by_name_with_what_would_be_allowed(strategy: str, reason: str, allowed: str) -> None:
    error = Mesh().ask("r", strategy=strategy).error
    assert error is not None
    assert (error.reason, error.details) == (reason, {"field": "strategy", "value": strategy, "allowed": allowed})


@pytest.mark.parametrize("strategy", ["dsi", f"cosine:drafter_count={len(DRAFTERS) + 1}"])
def test_one_that_has_begun_elsewhere_goes_on_with_whoever_is_there(strategy: str) -> None:
    mesh = Mesh()
    text = mesh.ask("r", strategy="plain", count=24)
    while len(text.tokens) < 6:
        mesh.deliver_oldest()
    mesh.leave("r")
    begun = replace(
        text.admission, request_id="s", token_ids=(*text.admission.token_ids, *text.tokens), strategy=strategy
    )
    taken_over = mesh.texts["s"] = Text(begun, list(text.tokens))
    mesh.tell(ev.RequestCame(begun))
    mesh.run()
    assert taken_over.error is None
    assert taken_over.tokens == taken_over.plain
