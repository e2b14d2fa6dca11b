"""The reference against the engine that serves: the same pictures, by a longer way."""

import wave

import numpy as np
import pytest

from engine.api import StepRow, StreamOptions
from engine.cache import DEFAULT_PORTRAIT
from engine.s3dnerf.engine import S3DNerfEngine
from engine.s3dnerf.unbaked import SCALES, UnbakedEngine

HOP = 640


@pytest.fixture(scope="module")
def unbaked():
    return UnbakedEngine()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(DEFAULT_PORTRAIT.with_name("sample_speech.wav"))) as file:
        return np.frombuffer(file.readframes(40 * HOP), np.int16).astype(np.float32) / 32768


def draw_last(engine, sound: np.ndarray, options: StreamOptions, count: int) -> np.ndarray:
    """The last ``count`` frames of a sound on the default avatar: [count, 256, 256, 3]; only these are drawn."""
    avatar = engine.enrol(DEFAULT_PORTRAIT.read_bytes())
    state = engine.init_state(1)
    state.reset(0, options)
    cuts = [0, *range(len(sound) - count * HOP + HOP, len(sound) + 1, HOP)]
    rows = [StepRow(slot=0, avatar=avatar, samples=sound[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    return np.concatenate([engine.step([row], state) for row in rows])


@pytest.mark.parametrize("motion", [0.0, 1.0])
def test_its_picture_is_the_baked_ones(unbaked, speech, motion):
    """Within four grey levels: baking keeps planes in half precision and interpolates scales into one another."""
    options = StreamOptions(seed=3, motion=motion)
    wanted = draw_last(unbaked, speech, options, 6).astype(int)
    given = draw_last(S3DNerfEngine(backend="eager"), speech, options, 6).astype(int)
    error = np.abs(given - wanted)
    assert error.mean() < 0.05 and np.percentile(error, 99.9) <= 4, (error.mean(), np.percentile(error, 99.9))
    still = np.abs(wanted - unbaked.enrol(DEFAULT_PORTRAIT.read_bytes()).crop.astype(int)).mean()
    assert still > 10 * error.mean()  # there was something to agree about


def test_it_keeps_no_more_of_a_portrait_than_the_encoder_says(unbaked):
    arrays = unbaked.enrol(DEFAULT_PORTRAIT.read_bytes()).arrays
    assert set(arrays) == {"crop", "landmarks", "own_code", "head_share", "D_0", *SCALES}
    sides = [arrays[name].shape[-1] for name in SCALES]
    assert sides == [128, 64, 32, 16]


def test_it_tells_where_a_frames_time_goes(unbaked, speech):
    draw_last(unbaked, speech[: 2 * HOP], StreamOptions(motion=0.0), 2)
    assert list(unbaked.stage_ms) == ["features", "identity", "deformation", "render", "superres"]
