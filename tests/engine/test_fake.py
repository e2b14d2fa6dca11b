from dataclasses import replace

import numpy as np
import pytest

from engine.api import Avatar, StepRow, StreamOptions
from engine.batch import fill
from engine.fake import FakeEngine
from engine.turn import Turn


def avatar_of(crop: np.ndarray) -> Avatar:
    return Avatar(engine="fake", fingerprint="fake-1", arrays={"crop": crop})


GREY = avatar_of(np.full((256, 256, 3), 90, np.uint8))
NO_PICTURE = avatar_of(np.zeros(5, np.uint8))


def loud(slot: int, avatar: Avatar = GREY) -> StepRow:
    return StepRow(slot=slot, avatar=avatar, samples=np.full(640, 0.5, np.float32))


def test_masked_rows_are_heard_by_nobody() -> None:
    engine = FakeEngine()
    state = engine.init_state(3)
    for slot in range(3):
        state.reset(slot, StreamOptions())
        engine.step([loud(slot)], state)
    before = state.sound.copy()
    engine.step(fill([loud(0)], 4, 640), state)
    assert (state.sound[1:] == before[1:]).all() and (state.sound[0] != before[0]).any()


def test_a_hushed_stream_is_dark_with_its_next_frame() -> None:
    engine = FakeEngine()
    state = engine.init_state(1)
    state.reset(0, StreamOptions())
    for _ in range(5):
        bright = engine.step([loud(0)], state)
    state.hush(0)
    silent = StepRow(slot=0, avatar=GREY, samples=np.zeros(640, np.float32))
    dark = engine.step([silent], state)
    assert bright[0, 180, 120, 0] > 200 and dark[0, 180, 120, 0] == 16


def test_a_step_that_fails_for_one_row_is_heard_by_none() -> None:
    engine = FakeEngine()
    state = engine.init_state(2)
    with pytest.raises(ValueError):
        engine.step([loud(0), loud(1, NO_PICTURE)], state)
    assert not state.sound.any()


def test_a_cutout_is_the_frame_inside_a_disc_that_moves_with_the_head() -> None:
    engine = FakeEngine()
    state = engine.init_state(1)
    alphas = []
    for turn in (Turn(), Turn(yaw_deg=10)):
        cutout = np.zeros((256, 256, 4), np.uint8)
        (frame,) = engine.step([replace(loud(0), cutout=cutout, turn=turn)], state)
        np.testing.assert_array_equal(cutout[..., :3], frame)
        alphas.append(cutout[..., 3].astype(float))
    ahead, right = (np.average(np.arange(256), weights=alpha.sum(0)) for alpha in alphas)
    assert alphas[0][128, 128] == 255 and alphas[0][0, 0] == 0
    assert right > ahead + 5
