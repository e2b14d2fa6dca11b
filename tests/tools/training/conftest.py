"""A clip made of the default portrait: its lips open and shut four times, and the sound is loud while they are open."""

import cv2
import numpy as np
import pytest
import torch

from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.lip_motion import fit_lip_motion
from tools.training.clips import Clip
from tools.training.faces import make_track
from tools.training.heard import Heard

FRAMES = 40
LOWER_LIP = [95, 88, 178, 87, 14, 317, 402, 318, 324, 146, 91, 181, 84, 17, 314, 405, 321, 375]


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def portrait():
    return read_portrait((DEFAULT_CHECKPOINT.parent / "default_portrait.jpg").read_bytes())


@pytest.fixture(scope="session")
def clip(portrait) -> Clip:
    opening = (1 - np.cos(np.arange(FRAMES) / FRAMES * 8 * np.pi)) / 2
    landmarks = np.repeat(portrait.landmarks[None], FRAMES, 0)
    landmarks[:, LOWER_LIP, 1] += 0.1 * opening[:, None]
    landmarks += np.random.default_rng(0).normal(0, 1e-3, landmarks.shape)
    jpeg = cv2.imencode(".jpg", portrait.crop[..., ::-1])[1].reshape(-1)
    sound = np.random.default_rng(1).standard_normal(FRAMES * 640) * 0.1 * np.repeat(opening, 640)
    return Clip(
        name="made",
        data=np.concatenate([jpeg] * FRAMES),
        offsets=np.arange(FRAMES + 1) * len(jpeg),
        landmarks=landmarks.astype(np.float32),
        sound=sound.astype(np.float32),
    )


@pytest.fixture(scope="session")
def still_clip(clip) -> Clip:
    return Clip(
        name="still", data=clip.data, offsets=clip.offsets[:2], landmarks=clip.landmarks[:1], sound=clip.sound[:0]
    )


@pytest.fixture(scope="session")
def motion(clip):
    return fit_lip_motion([clip.landmarks], codes=8)


@pytest.fixture(scope="session")
def track(clip, motion):
    return make_track(clip, motion)


@pytest.fixture(scope="session")
def still(still_clip, motion):
    return make_track(still_clip, motion)


@pytest.fixture(scope="session")
def heard(track) -> Heard:
    """Codes that nobody's lips show, so that they can be told from the true ones."""
    driving = torch.randn(FRAMES, 8, 128, generator=torch.Generator().manual_seed(0))
    return Heard(driving=[driving], codes=[np.arange(FRAMES * 8, dtype=np.float32).reshape(FRAMES, 8) + 100])
