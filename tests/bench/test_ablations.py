"""What is left out of cosine, one part at a time, is the same in virtual time and on the paced mesh."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bench.paper.ablations import ABLATIONS
from cosine.core.strategy import COSINE, Strategy, parse
from cosine.sim.table import SAMPLED_ABLATIONS, WITHOUT

WITHOUT_IT = {
    "calibration": {"calibrated"},
    "looking ahead": {"lookahead"},
    "adaptive length": {"length"},
    "chosen batches": {"batching"},
    "priors": {"priors"},
    "fusion": {"cooperation"},
    "cooperation": {"cooperation", "drafter_count", "first_count"},
    "routing": {"choice", "drafter_count"},
}


def changed(row: Strategy) -> set[str]:
    """The knobs in which a row differs from `cosine`."""
    names = {knob.name for knob in fields(Strategy)} - {"name", "demanded"}
    return {name for name in names if getattr(row, name) != getattr(COSINE, name)}


def test_an_ablation_changes_what_it_is_about_and_nothing_else() -> None:
    assert {part: changed(parse(text)) for part, text in WITHOUT.items()} == WITHOUT_IT


def test_one_routed_drafter_is_one_from_the_first_round_on() -> None:
    row = parse(WITHOUT["cooperation"])
    assert (row.drafter_count, row.first_count) == (1, 1)


@pytest.mark.parametrize("text", sorted({ablation.strategy for ablation in ABLATIONS}))
def test_what_the_paced_mesh_leaves_out_virtual_time_leaves_out_in_the_same_words(text: str) -> None:
    assert text in SAMPLED_ABLATIONS
    assert parse(text).name == text
