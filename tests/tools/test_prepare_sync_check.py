"""Sound and lips that disagree are told from those that agree, and in doubt a clip is kept."""

import numpy as np
import pytest

from engine.landmarks import EYE_OUTER, LOWER_LIP
from tests.tools.talking_face import loudness, speech
from tools.prepare.sync_check import SyncCurve, judge_clip, judge_speaker, measure_sync

START, FRAMES = 25, 150  # the sample begins with a second of silence


def face(opening: np.ndarray) -> np.ndarray:
    """Landmarks [n, 478, 3] of which only eyes and inner lips are anywhere; ``opening`` in eye distances."""
    landmarks = np.zeros((len(opening), 478, 3), np.float32)
    landmarks[:, EYE_OUTER[1], 0] = 1
    landmarks[:, LOWER_LIP, 1] = opening
    return landmarks


def talk(late: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and sound of somebody whose lips open as the sound gets loud, ``late`` frames after it."""
    samples = speech(8)
    level = np.convolve(loudness(samples, 200), [0.25, 0.5, 0.25], "same")
    opening = 0.15 * level + np.random.default_rng(seed).normal(0, 0.02, 200)
    begin = START - min(late, 0)
    lips = opening[begin - late : begin - late + FRAMES] if late > 0 else opening[begin - late :][:FRAMES]
    return face(lips), samples[begin * 640 :][: len(lips) * 640]


def judge(landmarks: np.ndarray, sound: np.ndarray) -> str | None:
    return judge_clip(landmarks, sound, measure_sync(landmarks, sound))


@pytest.mark.parametrize("late", [-2, 0, 2])
def test_lips_in_sync_are_kept(late):
    landmarks, sound = talk(late)
    assert abs(measure_sync(landmarks, sound).lag - late) <= 1
    assert judge(landmarks, sound) is None


@pytest.mark.parametrize("late", [-10, -6, 6, 10])
def test_lips_out_of_sync_are_left_out_with_the_offset(late):
    landmarks, sound = talk(late)
    lag = measure_sync(landmarks, sound).lag
    assert abs(lag - late) <= 1
    assert f"{'late' if late > 0 else 'early'} by {abs(lag)} frames" in str(judge(landmarks, sound))


def test_a_clip_too_short_to_tell_is_kept():
    landmarks, sound = talk(10)
    assert judge(landmarks[:45], sound[: 45 * 640]) is None
    assert judge(landmarks[:20], sound[: 20 * 640]) is None


def test_lips_that_do_not_move_while_there_is_speech():
    _, sound = talk(0)
    still = face(np.random.default_rng(0).normal(0.02, 0.003, FRAMES))
    assert "hardly move" in str(judge(still, sound))


def test_still_lips_in_a_quiet_clip_are_no_fault_and_silence_is():
    still = face(np.random.default_rng(0).normal(0.02, 0.003, FRAMES))
    hiss = np.random.default_rng(1).normal(0, 0.002, FRAMES * 640).astype(np.float32)
    assert judge(still, hiss) is None
    assert judge(still, hiss * 0) == "its sound is silent"


def test_someone_elses_sound_over_a_long_clip():
    rng = np.random.default_rng(2)
    lips = np.convolve(rng.normal(0, 1, 300), np.hanning(7), "same")
    samples = np.tile(speech(8)[START * 640 :], 2)[: 300 * 640]
    assert "nothing in common" in str(judge(face(0.2 + 0.05 * lips), samples))


def weak(lag: int, count: int, seed: int) -> list[SyncCurve]:
    """Curves of short clips, none of which is clear by itself."""
    rng = np.random.default_rng(seed)
    hill = 0.25 * np.exp(-(((np.arange(31) - 15 - lag) / 3) ** 2))
    return [SyncCurve((hill + 0.3 + rng.normal(0, 0.05, 31)).astype(np.float32), 75) for _ in range(count)]


def test_a_speakers_short_clips_are_judged_together():
    assert judge_speaker(weak(0, 10, 0)) is None
    assert judge_speaker(weak(3, 10, 1)) is None
    assert "late by 8 frames" in str(judge_speaker(weak(8, 10, 2)))


def test_a_speaker_is_not_judged_by_few_or_by_half_of_the_clips():
    assert judge_speaker(weak(8, 3, 0)) is None
    assert judge_speaker(weak(8, 5, 0) + weak(0, 5, 1)) is None
    assert judge_speaker([SyncCurve(np.full(31, np.nan, np.float32), 900)]) is None
