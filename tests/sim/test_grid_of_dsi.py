"""DSI and PipeInfer keep what their papers promise, in the settings of their papers: see `grids.py`.

DSI (arXiv 2405.14105): over acceptance rate and drafter latency, with the lookahead that its targets keep up with, it
is never slower than plain decoding or than speculative sampling at whatever lookahead. PipeInfer (arXiv 2407.11798):
where passes of the target overlap, or the drafter would else idle, it is faster than speculative sampling.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from cosine.sim.verifier import GRAINS
from tests.sim.grids import (
    ACCEPTANCES,
    LOOKAHEADS,
    SHARES,
    STAGE_COUNT,
    TARGET_COUNT,
    TARGET_MS,
    TOKEN_COUNT,
    Setting,
    best_speculative,
    gains,
    hits,
    passes_per_token,
    played,
    speculative_passes_per_token,
    targets,
)

EQUAL = 1 + 1e-9  # virtual time adds up floats
FEW_TARGETS = 1.05
VANILLA_5 = "vanilla:depth=5,node_budget=5"
TYPICAL = Setting(0.8, 0.1, TARGET_COUNT)


def grid(target_count: int = TARGET_COUNT, seed: int = 0) -> list[Setting]:
    """All cells."""
    return [Setting(acceptance, share, target_count, seed=seed) for acceptance, share in product(ACCEPTANCES, SHARES)]


# -- what is compared with


def test_guesses_are_right_as_often_as_the_setting_says() -> None:
    for acceptance in ACCEPTANCES:
        rate = sum(sum(hits(acceptance, seed)) for seed in range(50)) / (50 * TOKEN_COUNT)
        assert rate == pytest.approx(acceptance, abs=0.015)
        assert 0.0 < acceptance < 1.0 or rate == acceptance


def test_plain_decoding_takes_a_pass_per_token() -> None:
    assert passes_per_token("plain", TYPICAL) == pytest.approx(1.0)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_vanilla_takes_what_speculative_sampling_is_defined_to_take(lookahead: int) -> None:
    strategy = f"vanilla:depth={lookahead},node_budget={lookahead}"
    for setting in (TYPICAL, Setting(0.4, 0.7), Setting(1.0, 0.02)):
        expected = speculative_passes_per_token(setting, lookahead)
        assert passes_per_token(strategy, replace(setting, target_count=1)) == pytest.approx(expected)


# -- DSI


def test_dsi_is_nowhere_slower_than_plain_decoding() -> None:
    assert [setting for setting in grid() if passes_per_token("dsi", setting) > EQUAL] == []


def test_dsi_is_nowhere_slower_than_vanilla_with_drafts_of_five() -> None:
    slower = [
        setting
        for setting in grid()[::3]
        if passes_per_token("dsi", setting) > EQUAL * passes_per_token(VANILLA_5, replace(setting, target_count=1))
    ]
    assert slower == []


def test_dsi_is_nowhere_slower_than_speculative_sampling_at_the_lookahead_that_suits_it_best() -> None:
    slower = [setting for setting in grid() if passes_per_token("dsi", setting) > EQUAL * best_speculative(setting)]
    assert slower == []


def test_dsi_is_faster_than_both_where_drafts_are_mostly_right_and_cheap() -> None:
    for acceptance, share in product((0.6, 0.8, 0.9), (0.05, 0.1, 0.2)):
        over_plain, _, over_best = gains("dsi", [Setting(acceptance, share, TARGET_COUNT)], 5)
        assert over_plain > 2.0
        assert over_best > 1.05


def test_several_targets_work_on_one_request_at_once() -> None:
    mesh = played("dsi", TYPICAL)
    busy = [peer.device.busy_s() / mesh.clock.now for peer in targets(mesh)]
    assert sum(share > 0.0 for share in busy) > 4
    assert sum(busy) > 2.0, "as many are busy on average"


def test_the_more_targets_the_faster_up_to_the_seven_it_uses() -> None:
    passes = [passes_per_token("dsi", replace(TYPICAL, target_count=count)) for count in (2, 3, TARGET_COUNT, 12)]
    assert passes[0] > passes[1] > passes[2] == passes[3]


def test_two_targets_do_not_cover_the_lookahead_and_cost_at_most_what_the_first_stretch_waits() -> None:
    """They keep up with long stretches only: what hangs below the first drafted token is verified later than drafts of
    one token would be. Plain decoding waits for nothing even so."""
    for setting in grid(target_count=2)[::3]:
        passes = passes_per_token("dsi", setting)
        assert passes <= EQUAL
        assert passes <= FEW_TARGETS * best_speculative(setting)


# -- PipeInfer


@pytest.mark.parametrize("stage_count", [0, STAGE_COUNT])
def test_pipeinfer_is_never_slower_than_plain_decoding_by_more_than_a_refuted_pass_needs_to_stop(
    stage_count: int,
) -> None:
    cells = [replace(cell, stage_count=stage_count) for cell in grid(target_count=1)[::3]]
    assert [setting for setting in cells if passes_per_token("pipeinfer", setting) > EQUAL + 1 / GRAINS] == []


@pytest.mark.parametrize(
    ("stage_count", "shares"),
    [(STAGE_COUNT, (0.1, 0.2, 0.4)), (0, (0.4, 0.7))],
    ids=["where passes of the target overlap", "where the drafter would else idle for long"],
)
def test_pipeinfer_is_faster_than_vanilla(stage_count: int, shares: tuple[float, ...]) -> None:
    for acceptance, share in product((0.4, 0.6, 0.8, 0.9), shares):
        setting = Setting(acceptance, share, stage_count=stage_count)
        _, over_vanilla, _ = gains("pipeinfer", [setting], 4)
        assert over_vanilla > 1.05, setting


def test_pipeinfer_on_a_pipeline_is_faster_than_vanilla_at_its_best_lookahead_where_drafts_are_cheap() -> None:
    for acceptance, share in product((0.4, 0.6, 0.8, 0.9), (0.1, 0.2)):
        _, _, over_best = gains("pipeinfer", [Setting(acceptance, share, stage_count=STAGE_COUNT)], 4)
        assert over_best > 1.05


def test_pipeinfer_lets_the_drafter_work_while_the_target_does() -> None:
    idle = {}
    for strategy in ("vanilla", "pipeinfer"):
        mesh = played(strategy, Setting(0.8, 0.2))
        idle[strategy] = sum(peer.device.idle_s() for peer in mesh.drafters.values()) / mesh.clock.now
    assert idle["pipeinfer"] < 0.1 < 0.4 < idle["vanilla"]


def test_pipeinfer_stops_passes_that_an_earlier_verdict_refutes() -> None:
    (target,) = targets(played("pipeinfer", Setting(0.4, 0.1)))
    refuted_s = hits(0.4, 0).count(False) * TARGET_MS / 1000
    assert 0 < target.device.usage.cancelled_s < refuted_s / 8, "a fraction of the passes they would have been"
