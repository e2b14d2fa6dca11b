"""A trend that is there is found, one that is not is not, and the error says which is which."""

import numpy as np
import pytest

from tools.memory_trend import fit_trend

TIMES_S = np.arange(0, 1800, 3.0)


def slope_and_error(resident_mb: np.ndarray) -> tuple[float, float]:
    trend = fit_trend(TIMES_S, resident_mb)
    assert trend.mb_per_hour is not None and trend.error_mb_per_hour is not None
    return trend.mb_per_hour, trend.error_mb_per_hour


def noise(seed: int, *, steps: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if not steps:
        return rng.normal(0, 2, len(TIMES_S))
    values = np.zeros(len(TIMES_S))
    for index in range(1, len(values)):
        values[index] = 0.9 * values[index - 1] + rng.normal(0, 1)
    return values


def test_a_straight_line_is_its_own_slope():
    slope, error = slope_and_error(500 + TIMES_S / 3600 * 30)
    assert slope == pytest.approx(30) and error == pytest.approx(0, abs=1e-6)


def test_what_fills_up_in_the_beginning_is_no_trend():
    filling = 500 + 80 * np.minimum(1, TIMES_S / 500)
    slope, error = slope_and_error(filling + noise(0, steps=False))
    assert abs(slope) < 3 * error
    assert fit_trend(TIMES_S, filling).from_s == pytest.approx(599)


@pytest.mark.parametrize("steps", [False, True])
def test_the_error_is_as_large_as_the_slopes_of_memory_that_does_not_grow(steps):
    slopes, errors = zip(*(slope_and_error(500 + noise(seed, steps=steps)) for seed in range(200)), strict=True)
    assert 0.6 < np.median(errors) / np.std(slopes) < 1.6


def test_a_leak_stands_out():
    leak = 500 + TIMES_S / 3600 * 60 + noise(1, steps=True)
    slope, error = slope_and_error(leak)
    assert slope > 5 * error
    assert slope == pytest.approx(60, abs=4 * error)


def test_too_short_a_run_says_nothing():
    for count in (0, 1, 7):
        trend = fit_trend(TIMES_S[:count], np.ones(count))
        assert trend.mb_per_hour is None and trend.error_mb_per_hour is None
