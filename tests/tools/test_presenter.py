"""What the long run is judged by; the run itself is for `python -m tools.presenter`."""

import numpy as np
import pytest

from tools.memory_trend import fit_trend
from tools.presenter import GROWTH_MB_PER_HOUR, find_growth, format_report

TIMES_S = np.arange(0, 600, 2.0)


def trends(mb_per_hour: dict[str, float]):
    noise = np.random.default_rng(0).normal(0, 0.2, len(TIMES_S))
    return {name: fit_trend(TIMES_S, 300 + noise + TIMES_S / 3600 * slope) for name, slope in mb_per_hour.items()}


@pytest.mark.parametrize("name", GROWTH_MB_PER_HOUR)
def test_what_grows_is_named_and_what_does_not_is_not(name):
    still = dict.fromkeys(GROWTH_MB_PER_HOUR, 0.0)
    assert find_growth(trends(still)) == []
    assert find_growth(trends(still | {name: 4 * GROWTH_MB_PER_HOUR[name]})) == [name]


def test_a_run_that_is_too_short_tells_no_trend_and_accuses_nobody():
    short = {name: fit_trend(TIMES_S[:4], TIMES_S[:4]) for name in GROWTH_MB_PER_HOUR}
    assert find_growth(short) == []
    report = {"engine": "fake", "seconds": 8, "fps": 25.0, "grows": [], **{n: t.as_json() for n, t in short.items()}}
    assert "too short a run" in format_report(report)
