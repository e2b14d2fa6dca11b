import math
import random

import numpy as np
import pytest

from engine.motion import BREATH_MAX, PITCH_MAX_DEG, REST, ROLL_MAX_DEG, YAW_MAX_DEG, Motion, idle_motion

FPS = 25
MINUTES = 4
KNOWN = (-0.457103271544, -0.043188708884, -0.045696310761)  # seed 42, frame 1000


def frames(seed: int, count: int = MINUTES * 60 * FPS, amount: float = 1.0) -> list[Motion]:
    return [idle_motion(seed, k, amount) for k in range(count)]


def column(motions: list[Motion], name: str) -> np.ndarray:
    return np.array([getattr(m, name) for m in motions])


def blink_starts_s(motions: list[Motion]) -> np.ndarray:
    blink = column(motions, "blink")
    return np.flatnonzero((blink[1:] > 0) & (blink[:-1] == 0)) / FPS


def test_any_frame_can_be_asked_for_directly():
    in_order = frames(11, 500)
    order = list(range(500))
    random.Random(0).shuffle(order)
    assert all(idle_motion(11, k, 1.0) == in_order[k] for k in order)


def test_known_values_hold_on_every_machine():
    """Another build, process or interpreter must draw the same stream."""
    motion = idle_motion(42, 1000, 1.0)
    assert (motion.yaw_deg, motion.pitch_deg, motion.roll_deg) == pytest.approx(KNOWN, abs=1e-9)


@pytest.mark.parametrize("amount", [0, 0.0, -1.0, math.nan])
def test_no_amount_is_exact_rest(amount):
    assert all(idle_motion(3, k, amount) == REST for k in range(0, 3000, 7))


def test_before_the_stream_begins_the_portrait_rests_and_then_moves_off_smoothly():
    assert idle_motion(3, -1, 1.0) == REST
    first = idle_motion(3, 0, 1.0)
    assert (first.yaw_deg, first.shift, first.brow) == (0.0, (0.0, 0.0), 0.0)
    assert abs(idle_motion(3, 1, 1.0).yaw_deg) < 0.02


@pytest.mark.parametrize("seed", [0, 1, -7, 2**63 + 5, 10**30])
def test_blinks_come_at_human_rates(seed):
    starts = blink_starts_s(frames(seed))
    assert 11 <= len(starts) / MINUTES <= 21
    gaps = np.diff(starts)
    assert gaps.std() > 0.8, "a metronome, not a person"
    assert gaps.max() < 20


def test_a_blink_shuts_fast_opens_slowly_and_shuts_fully():
    fine_fps = 1000  # look between the video's frames
    blink = np.array([idle_motion(9, k, 1.0, fps=fine_fps).blink for k in range(60 * fine_fps)])
    edges = np.flatnonzero(np.diff((blink > 0).astype(int)))
    assert len(edges) >= 20
    for begin, end in zip(edges[::2], edges[1::2], strict=False):
        one = blink[begin + 1 : end + 1]
        shut = np.flatnonzero(one == 1.0)
        assert 100 <= len(one) <= 350
        assert len(shut) >= 40, "at 25 fps one frame must catch the eyes shut"
        assert shut[0] < len(one) - shut[-1]


def test_some_blinks_are_double_and_most_are_not():
    gaps = np.concatenate([np.diff(blink_starts_s(frames(seed))) for seed in range(4)])
    assert 0.02 < np.mean(gaps < 0.65) < 0.3


def test_sway_and_breath_stay_small_smooth_and_alive():
    motions = frames(21)
    for name, bound in (("yaw_deg", YAW_MAX_DEG), ("pitch_deg", PITCH_MAX_DEG), ("roll_deg", ROLL_MAX_DEG)):
        values = column(motions, name)
        assert 0.4 * bound < np.abs(values).max() <= bound
        assert np.abs(np.diff(values)).max() < 0.2, "degrees a frame"
    shift = column(motions, "shift")
    assert 0.5 * BREATH_MAX < np.abs(shift[:, 1]).max() <= BREATH_MAX
    brow = column(motions, "brow")
    assert 0.1 < brow.max() < 0.5 and brow.min() > -0.1


def test_breathing_is_about_a_quarter_hertz():
    down = column(frames(2), "shift")[:, 1]
    spectrum = np.abs(np.fft.rfft(down - down.mean()))
    peak_hz = np.fft.rfftfreq(len(down), 1 / FPS)[spectrum.argmax()]
    assert 0.2 <= peak_hz <= 0.3


def test_amount_scales_the_movement_and_leaves_blinks_whole():
    whole, half = frames(5, 2000), frames(5, 2000, amount=0.5)
    np.testing.assert_allclose(column(half, "yaw_deg"), column(whole, "yaw_deg") / 2)
    np.testing.assert_array_equal(column(half, "blink"), column(whole, "blink"))


def test_no_two_streams_are_alike():
    streams = [frames(seed, 1500) for seed in (0, 1, 2, 3, -1, 2**40)]
    for i, a in enumerate(streams):
        for b in streams[:i]:
            assert not np.array_equal(blink_starts_s(a), blink_starts_s(b))
            assert np.abs(column(a, "yaw_deg") - column(b, "yaw_deg")).max() > 0.3
            assert abs(np.corrcoef(column(a, "pitch_deg"), column(b, "pitch_deg"))[0, 1]) < 0.95
