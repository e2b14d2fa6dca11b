"""Each figure on made-up lips whose answer is known."""

import numpy as np
import pytest

from engine.landmarks import LIPS, LOWER_LIP, RIGID
from tools import lip_figures


@pytest.fixture
def face() -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.6, 0.6, (478, 3)).astype(np.float32)


def talk(face: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """The face with its lower lip moved down by ``opening`` (crop units) in each frame."""
    landmarks = np.repeat(face[None], len(opening), 0)
    landmarks[:, LOWER_LIP, 1] += opening
    return landmarks


def test_alignment_takes_out_head_motion_and_keeps_the_lips(face):
    opening = np.linspace(0, 0.1, 12, dtype=np.float32)
    still = talk(face, opening)
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float32)
    moved = still @ turn.T * 1.1 + np.array([0.1, -0.05, 0.02], np.float32)
    np.testing.assert_allclose(lip_figures.align_landmarks(moved, face), still, atol=1e-4)


def test_alignment_leaves_frames_without_a_face_unknown(face):
    landmarks = talk(face, np.zeros(3, np.float32))
    landmarks[1] = np.nan
    aligned = lip_figures.align_landmarks(landmarks, face)
    assert lip_figures.found_frames(aligned).tolist() == [True, False, True]


def test_correlation_is_pearsons_over_known_frames():
    rng = np.random.default_rng(2)
    a = rng.normal(size=50)
    b = 0.5 * a + rng.normal(size=50)
    assert lip_figures.correlate(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    gaps = a.copy()
    gaps[::7] = np.nan
    known = np.isfinite(gaps)
    assert lip_figures.correlate(gaps, b) == pytest.approx(np.corrcoef(a[known], b[known])[0, 1])


@pytest.mark.parametrize("signal", [np.full(20, np.nan), np.ones(20), np.r_[np.arange(7.0), [np.nan] * 13]])
def test_correlation_of_what_is_unknown_or_never_moves_is_none(signal):
    assert lip_figures.correlate(signal, np.arange(20.0)) is None
    assert lip_figures.find_lag(signal, np.arange(20.0)) is None


@pytest.mark.parametrize("lag", [-5, -2, 0, 1, 4])
def test_lag_is_positive_when_the_rendered_mouth_is_late(lag):
    real = np.random.default_rng(3).normal(size=75)
    assert lip_figures.find_lag(np.roll(real, lag), real) == lag


def test_lip_distance_is_in_pixels_and_ignores_a_shift_of_the_whole_mouth(face):
    a = talk(face, np.zeros(4, np.float32))
    b = a.copy()
    b[:, LIPS, :2] += 0.3
    assert lip_figures.lip_distance_px(a, b) == pytest.approx(0, abs=1e-4)
    b = a.copy()
    b[:, LIPS[:20], 0] += 2 / 128  # half the points 2 px to the right: each is 1 px from its centred place
    assert lip_figures.lip_distance_px(a, b) == pytest.approx(1, abs=1e-3)


def test_face_distance_counts_every_face_point(face):
    a = talk(face, np.zeros(4, np.float32))
    b = a.copy()
    b[:, :, 1] += 3 / 128
    assert lip_figures.face_distance_px(a, b) == pytest.approx(3, abs=1e-3)
    assert lip_figures.face_distance_px(a, np.full_like(a, np.nan)) is None


def test_opening_and_its_spread(face):
    assert RIGID.max() < 478
    face[[13, 14]] = 0
    real = lip_figures.opening_px(talk(face, np.linspace(0, 0.1, 20, dtype=np.float32)))
    assert real[-1] == pytest.approx(12.8, abs=1e-3)
    assert lip_figures.std_ratio(real / 4, real) == pytest.approx(0.25)
    assert lip_figures.std_ratio(real, np.ones(20)) is None


def test_picture_figures_on_known_pictures():
    a = np.random.default_rng(4).integers(0, 200, (2, 32, 32, 3), np.uint8)
    assert lip_figures.mean_ssim(a, a) == pytest.approx(1)
    assert lip_figures.mean_psnr_db(a, a) is None
    assert lip_figures.mean_psnr_db(a, a + np.uint8(10)) == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert lip_figures.mean_ssim(a, a[:, ::-1]) < 0.5


def test_spread_is_over_known_frames_and_needs_some():
    opening = np.r_[np.tile([1.0, 3.0], 10), np.nan]
    assert lip_figures.spread_px(opening) == pytest.approx(1)
    assert lip_figures.spread_px(opening[:7]) is None
    assert lip_figures.spread_px(np.full(20, np.nan)) is None


def test_a_quotient_of_what_is_unknown_or_nothing_is_none():
    assert lip_figures.divide(1.0, 4.0) == 0.25
    assert lip_figures.divide(None, 1.0) is lip_figures.divide(1.0, None) is lip_figures.divide(1.0, 0.0) is None
