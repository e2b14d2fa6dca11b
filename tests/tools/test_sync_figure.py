"""The shipped lip-sync judge, on an avatar that speaks: its lips are in sync by construction."""

import numpy as np
import pytest
import torch

from engine.api import Engine
from engine.cache import DEFAULT_PORTRAIT
from engine.registry import create_engine
from tools.sound_file import read_mono
from tools.speaking import find_landmarks, render_frames
from tools.sync_figure import SyncFigure, best_offset, measure_sync

FRAMES = 110
SHIFT = 6  # frames


def measure(frames: np.ndarray, landmarks: np.ndarray, samples: np.ndarray) -> SyncFigure:
    figure = measure_sync(frames, landmarks, samples)
    assert figure is not None
    return figure


@pytest.fixture(scope="module")
def spoken():
    """Frames, landmarks and sound of the default avatar speaking our sample."""
    torch.set_num_threads(1)
    engine: Engine = create_engine()
    samples = read_mono(DEFAULT_PORTRAIT.with_name("sample_speech.wav"))[8_000 : 8_000 + FRAMES * 640]
    frames = render_frames(engine, engine.enrol(DEFAULT_PORTRAIT.read_bytes()), samples, FRAMES)
    return frames, find_landmarks(frames), samples


@pytest.fixture(scope="module")
def in_sync(spoken):
    return measure(*spoken)


def test_finds_that_lips_and_sound_go_together(in_sync):
    assert abs(in_sync.offset_frames) <= 2
    assert in_sync.score > 0.1


def test_late_sound_is_found_late(spoken, in_sync):
    frames, landmarks, samples = spoken
    early_lips = measure(frames, landmarks, np.pad(samples, (SHIFT * 640, 0)))
    assert abs(early_lips.offset_frames - (in_sync.offset_frames - SHIFT)) <= 1


def test_a_still_picture_scores_less(spoken, in_sync):
    frames, landmarks, samples = spoken
    held = np.zeros(FRAMES, int)
    assert measure(frames[held], landmarks[held], samples).score < in_sync.score / 3


def test_loudness_hardly_matters(spoken, in_sync):
    frames, landmarks, samples = spoken
    assert measure(frames, landmarks, samples * 0.1).score == pytest.approx(in_sync.score, abs=0.02)


def test_frames_without_a_face_are_left_out(spoken, in_sync):
    frames, landmarks, samples = spoken
    gaps = landmarks.copy()
    gaps[40:44] = np.nan
    figure = measure(frames, gaps, samples)
    assert abs(figure.offset_frames - in_sync.offset_frames) <= 1


def test_no_figure_where_there_is_too_little(spoken):
    frames, landmarks, samples = spoken
    assert measure_sync(frames[:40], landmarks[:40], samples) is None
    assert measure_sync(frames, np.full_like(landmarks, np.nan), samples) is None
    assert measure_sync(frames, landmarks, np.zeros_like(samples)) is None


def test_offset_is_that_of_the_highest_mean():
    score = torch.zeros(80, 80)
    middles = np.arange(2, 78)
    score[np.arange(4, 76) - 2, np.arange(4, 76) - 4] = 0.5  # lips come four frames late
    figure = best_offset(score[: len(middles)], middles)
    assert figure.offset_frames == 4 and figure.score == pytest.approx(0.5, abs=0.05)
