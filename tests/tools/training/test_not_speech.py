"""Sounds that move no lips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.training.not_speech import MAKERS, make_row
from tools.training.phones import SAMPLE_RATE_HZ
from tools.training.sounds import begin_or_end


@pytest.mark.parametrize("make", [make for make, _ in MAKERS], ids=lambda make: make.__name__)
def test_every_sound_is_audible_and_finite(make) -> None:
    for seed in range(5):
        row = make(2 * SAMPLE_RATE_HZ, np.random.default_rng(seed))
        assert row.shape == (2 * SAMPLE_RATE_HZ,) and np.isfinite(row).all() and row.std() > 0


def test_rows_have_unit_power() -> None:
    rows = [make_row(SAMPLE_RATE_HZ, [], np.random.default_rng(seed)) for seed in range(8)]
    assert np.allclose([np.sqrt((row**2).mean()) for row in rows], 1, atol=0.01)


def test_the_shares_of_the_makers_are_all_there_is() -> None:
    assert sum(share for _, share in MAKERS) == pytest.approx(1)


def test_half_of_the_rows_begin_or_end_in_silence() -> None:
    sound = begin_or_end(torch.ones(400, 1000), np.random.default_rng(0))
    whole = (sound == 1).all(1).float().mean().item()
    assert 0.5 < whole < 0.8  # of those that are cut, some are cut outside the row
    assert set(sound.unique().tolist()) == {0.0, 1.0}


def test_a_cut_row_sounds_in_one_piece() -> None:
    sound = begin_or_end(torch.ones(200, 1000), np.random.default_rng(1), share=1.0)
    assert (sound.diff(dim=1).abs().sum(1) <= 2).all()
