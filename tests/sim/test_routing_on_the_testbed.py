"""Routing finds its way on what the test bed's models really guessed; see `recorded_routing` for how that is played."""

from __future__ import annotations

from statistics import fmean

import pytest

from cosine.core.routing import SCORE, Score
from cosine.sim.recording import Variant
from tests.sim.recorded_routing import SEEDS, Setting, routed, share_of_oracle


def test_after_three_rounds_the_specialist_of_its_domain_works_on_nine_requests_of_ten() -> None:
    assert routed(Setting(Variant.GREEDY, SCORE)).share_at_home >= 0.9


def test_at_temperature_one_it_takes_what_requests_of_a_kind_taught_to_find_them_so_often() -> None:
    alone, taught = (
        fmean(routed(Setting(Variant.SHARED, SCORE, priors=priors, seed=seed)).share_at_home for seed in SEEDS)
        for priors in (False, True)
    )
    assert taught >= 0.9 > alone


@pytest.mark.parametrize("variant", list(Variant))
def test_priors_bring_the_accepted_length_nearer_to_an_oracles(variant: Variant) -> None:
    alone, taught = (share_of_oracle(Setting(variant, SCORE, priors=priors)) for priors in (False, True))
    assert taught > alone


@pytest.mark.parametrize("variant", list(Variant))
def test_the_accepted_length_comes_within_a_twentieth_of_an_oracles(variant: Variant) -> None:
    assert share_of_oracle(Setting(variant, SCORE)) >= 0.95


@pytest.mark.parametrize("variant", list(Variant))
def test_the_harmonic_score_is_accepted_about_as_much_as_hits_alone(variant: Variant) -> None:
    harmonic, hits = (share_of_oracle(Setting(variant, score)) for score in (Score.HARMONIC, Score.HITS))
    assert harmonic == pytest.approx(hits, abs=0.02)


@pytest.mark.parametrize("variant", list(Variant))
def test_the_harmonic_score_needs_each_proposers_own_confidence_to_find_specialists(variant: Variant) -> None:
    own, joint = (routed(Setting(variant, Score.HARMONIC, joint)) for joint in (False, True))
    assert own.share_at_home > joint.share_at_home + 0.03
