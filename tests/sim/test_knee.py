"""Knees of curves that are drawn by hand, and powers that are known."""

import pytest

from cosine.sim.knee import efficiency, exponent, saturation


def test_a_curve_that_flattens_has_its_knee_where_it_reaches_95_percent() -> None:
    assert saturation([1, 2, 4, 8], [50.0, 94.0, 95.0, 100.0]) == 4
    assert saturation([1, 2, 4, 8], [100.0, 100.0, 90.0, 80.0]) == 1


def test_a_curve_that_still_grows_has_none() -> None:
    assert saturation([1, 2, 4], [10.0, 20.0, 40.0]) is None


def test_efficiency_ends_before_the_first_count_below_80_percent_of_the_firsts() -> None:
    assert efficiency([1, 2, 4, 8], [10.0, 19.0, 32.0, 60.0]) == 4
    assert efficiency([2, 4], [20.0, 40.0]) is None
    assert efficiency([2, 4], [20.0, 20.0]) == 2


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    counts = [1.0, 3.0, 10.0, 64.0]
    assert exponent(counts, [7.0 * count**power for count in counts]) == pytest.approx(power)
