"""Figures of the upper face on noise and steps whose size is known."""

import cv2
import numpy as np
import pytest

from engine.cache import DEFAULT_PORTRAIT
from engine.landmarks import BROWS, FaceMesh
from engine.portrait import read_portrait
from tools import face_figures

SIDE = 256


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """Landmarks [478, 3] of the built-in portrait, in crop coordinates."""
    return read_portrait(DEFAULT_PORTRAIT.read_bytes()).landmarks


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return read_portrait(DEFAULT_PORTRAIT.read_bytes()).crop


def shake(frames: np.ndarray, levels: int) -> np.ndarray:
    """Frames with every pixel up and down by ``levels`` in turn."""
    return frames + (np.arange(len(frames)) % 2 * levels).astype(np.uint8)[:, None, None, None]


def test_the_upper_face_ends_at_the_nose_and_inside_the_outline(face):
    mask = face_figures.upper_face_mask(face, SIDE)
    points = ((face[:, :2] + 1) * SIDE / 2).astype(int)
    eyes, lips, chin, ear = points[[33, 263]], points[[13, 14]], points[152], points[127]
    assert all(mask[y, x + 6 * (x < 128) - 6 * (x >= 128)] for x, y in eyes)
    assert not mask[lips[:, 1], lips[:, 0]].any() and not mask[chin[1], chin[0]] and not mask[ear[1], ear[0]]
    assert 0.05 < mask.mean() < 0.4


def test_flicker_of_a_noisy_still_is_its_noise_and_of_a_quiet_one_nothing(face, crop):
    mask, still = face_figures.upper_face_mask(face, SIDE), np.ones(11, bool)
    held = np.repeat(np.minimum(crop, 240)[None], 12, 0)
    assert face_figures.flicker_levels(held, mask, still) == 0
    assert face_figures.flicker_levels(shake(held, 7), mask, still) == pytest.approx(7, abs=0.5)


def test_flicker_counts_only_the_upper_face_and_only_still_steps(face, crop):
    mask = face_figures.upper_face_mask(face, SIDE)
    held = np.repeat(np.minimum(crop, 240)[None], 12, 0)
    mouth = held.copy()
    mouth[:, 180:] = shake(held, 9)[:, 180:]
    assert face_figures.flicker_levels(mouth, mask, np.ones(11, bool)) == 0
    once = held.copy()
    once[6:] += 10  # one jump, at the step from frame 5 to 6
    still = np.ones(11, bool)
    still[5] = False
    assert face_figures.flicker_levels(once, mask, still) == 0
    assert face_figures.flicker_levels(once, mask, np.zeros(11, bool)) is None


def test_nods_blinks_and_lost_faces_are_not_still(face):
    landmarks = np.repeat(face[None], 9, 0)
    assert face_figures.still_steps(landmarks).all()
    landmarks[2, :, 1] += 2 / 128  # the whole head 2 px down, and up again
    landmarks[5, [159, 386], 1] += 4 / 128  # both upper lids
    landmarks[8] = np.nan
    assert np.flatnonzero(~face_figures.still_steps(landmarks)).tolist() == [1, 2, 4, 5, 7]
    frown = np.repeat(face[None], 2, 0)
    frown[1, BROWS, 1] += 2 / 128
    assert not face_figures.still_steps(frown).any()


def test_speech_alone_leaves_the_upper_face_still(face):
    landmarks = np.repeat(face[None], 6, 0)
    landmarks[::2, 14, 1] += 0.1
    assert face_figures.still_steps(landmarks).all()


def test_psnr_to_the_source_is_of_the_upper_face_alone(face, crop):
    mask = face_figures.upper_face_mask(face, SIDE)
    source = np.minimum(crop, 240)
    frames = np.repeat(source[None], 3, 0)
    frames[1][mask] += 10
    frames[2][~mask] = 0
    values = face_figures.upper_psnr_db(frames, source, mask)
    assert values == pytest.approx([face_figures.EQUAL_DB, 20 * np.log10(25.5), face_figures.EQUAL_DB], abs=1e-4)
    assert np.isnan(face_figures.upper_psnr_db(frames, source, np.zeros_like(mask))).all()


def test_a_blurred_mouth_has_less_detail_and_the_rest_does_not_count(face, crop):
    blurred = cv2.GaussianBlur(crop, (0, 0), 2)
    box = face_figures.mouth_box(face, SIDE)
    mouth, around = crop.copy(), blurred.copy()
    mouth[box], around[box] = blurred[box], crop[box]
    detail = [face_figures.detail_levels(x[None], face[None]) or 0.0 for x in (crop, mouth, around)]
    assert detail[1] < 0.5 * detail[0] and detail[2] == pytest.approx(detail[0], rel=0.25)
    assert face_figures.detail_levels(crop[None], np.full((1, 478, 3), np.nan)) is None


def test_the_trackers_tremble_on_a_held_head_counts_as_still(crop):
    """Real landmarks of a real picture under camera noise of one grey level."""
    rng = np.random.default_rng(5)
    noisy = np.clip(crop + rng.normal(0, 1, (12, *crop.shape)), 0, 255).astype(np.uint8)
    mesh = FaceMesh(video=True)
    found = [mesh.find(frame)[0] * 2 / SIDE - np.array([1, 1, 0]) for frame in [crop] * 5 + list(noisy)]
    mesh.close()
    assert face_figures.still_steps(np.stack(found[5:])).mean() > 0.7
