"""A clip's figures: on frames of the fake engine, and where real lips are at hand on those."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.fake import FakeEngine, loudness_of
from engine.portrait import read_portrait
from tools import clip_figures
from tools.clip import ClipUnreadable, read_samples
from tools.clip_figures import Pair
from tools.figure_keys import EPILOG
from tools.speaking import find_landmarks, render_frames

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid_others"
needs_grid = pytest.mark.skipif(not GRID.is_dir(), reason="needs videos of talking faces beside the project")


def png(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def measure(rendered: np.ndarray, real: np.ndarray, samples: np.ndarray | None = None) -> dict:
    samples = np.zeros(len(real) * 640, np.float32) if samples is None else samples
    pair = Pair(rendered=rendered, real=real, source=real[0], samples=samples)
    return clip_figures.measure_pair(pair, clip_figures.find_pair(pair))


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return clip_figures.crop_frames(sorted(GRID.glob("*.mp4"))[0], 256)[1][:40]


def test_frame_k_is_the_one_that_stands_at_k_25ths_of_the_sound():
    samples = np.zeros(25 * 640, np.float32)
    samples[10 * 640 - 320 : 10 * 640 + 320] = 0.9  # the 40 ms around frame 10's instant
    engine = FakeEngine()
    frames = render_frames(engine, engine.enrol(png()), samples, 25)
    assert frames.shape == (25, 256, 256, 3)
    mouth = frames[:, 180, 128, 0].astype(int)
    assert mouth.argmax() == 10 and sorted(set(mouth[:9])) == [mouth[0]]
    assert loudness_of(samples[10 * 640 - 320 : 10 * 640 + 320]) > 0.9


def test_frames_without_a_face_give_no_lip_figures_and_no_crash():
    frames = np.zeros((3, 256, 256, 3), np.uint8)
    with pytest.raises(ClipUnreadable, match="no face"):
        measure(frames, frames)
    assert np.isnan(find_landmarks(frames)).all()


def test_mean_leaves_out_what_is_unknown():
    clips = [{"clip": "a", "m_lmd": 1.0, "ssim": None}, {"clip": "b", "m_lmd": 2.0, "ssim": None}]
    assert clip_figures.mean_figures(clips) == {"count": 2, "m_lmd": 1.5, "ssim": None, "lag_within_1_share": None}


def test_early_and_late_clips_do_not_cancel_in_the_share_within_a_frame():
    mean = clip_figures.mean_figures([{"clip": str(lag), "lag_frames": lag} for lag in (-3, 3, 1, None)])
    assert mean["lag_frames"] == pytest.approx(1 / 3) and mean["lag_within_1_share"] == pytest.approx(1 / 3)


@needs_grid
def test_real_frames_score_as_the_anchor_of_real_frames(real):
    same = measure(real, real)
    assert same["mouth_corr"] == pytest.approx(1) and same["lag_frames"] == 0
    assert same["m_lmd"] == pytest.approx(0) and same["ssim"] == pytest.approx(1)
    assert same["opening_std_ratio"] == pytest.approx(1) and same["faces_found"] == same["frames"] == 40
    for key in ("opening_std", "cpbd", "mouth_detail", "flicker", "upper_psnr", "sync", "no_face_frames"):
        assert same[key] == same[f"{key}_real"], key
    assert same["no_face_frames"] == 0


@needs_grid
def test_a_held_frame_scores_as_the_anchor_of_the_still(real):
    held = measure(np.repeat(real[:1], len(real), 0), real)
    assert held["m_lmd"] == pytest.approx(held["m_lmd_still"], rel=0.05)  # but for the tracker's own tremble
    for key in ("ssim", "psnr", "cpbd", "flicker", "upper_psnr"):
        assert held[key] == pytest.approx(held[f"{key}_still"], abs=1e-6), key
    assert held["mouth_detail"] == pytest.approx(held["mouth_detail_still"], rel=0.05)
    assert held["upper_psnr"] == 60 and held["cpbd_ratio"] == pytest.approx(1) and held["flicker"] == 0


@needs_grid
def test_late_frames_score_as_late(real):
    late = measure(np.concatenate([real[:1], real[:1], real[:-2]]), real)
    assert late["lag_frames"] == 2 and late["mouth_corr"] < 0.95


@needs_grid
def test_blur_costs_sharpness_and_trembling_light_is_flicker(real):
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in real])
    figures = measure(blurred, real)
    assert figures["cpbd"] < 0.5 * figures["cpbd_real"] and figures["mouth_detail_ratio"] < 0.6
    assert figures["cpbd_ratio"] == pytest.approx(figures["cpbd"] / figures["cpbd_source"])
    trembling = np.repeat(np.minimum(real[:1], 250), len(real), 0)
    trembling[::2] += 5
    figures = measure(trembling, real)
    assert figures["flicker"] == pytest.approx(5, abs=0.1) and figures["flicker_still"] == 0
    assert 0 < figures["flicker_real"] < 3


@needs_grid
def test_frames_without_a_face_are_counted(real):
    gone = real.copy()
    gone[20:] = 0
    figures = measure(gone, real)
    assert figures["no_face_frames"] == 20 and figures["faces_found"] == 20 and figures["no_face_frames_real"] == 0


@needs_grid
def test_every_figure_is_told_in_the_help(real):
    words = EPILOG.replace(",", " ").replace(";", " ").replace(":", " ").split()
    for key in measure(real, real):
        assert key.removesuffix("_real").removesuffix("_still") in words, key


@needs_grid
def test_real_frames_are_cropped_as_enrolment_crops_the_first():
    clip = sorted(GRID.glob("*.mp4"))[0]
    png, real = clip_figures.crop_frames(clip, 256)
    np.testing.assert_allclose(real[0].astype(int), read_portrait(png).crop.astype(int), atol=2)
    assert real.shape == (75, 256, 256, 3) and len(read_samples(clip, 75 * 640)) == 75 * 640
