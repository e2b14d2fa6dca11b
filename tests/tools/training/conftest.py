"""A clip made of the default portrait: its lips open and shut four times, and the sound is loud while they are open."""

import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.lip_motion import fit_lip_motion
from tools.training.clips import Clip
from tools.training.deform_stage import DeformRecipe
from tools.training.faces import make_track
from tools.training.family import Family
from tools.training.field_stage import FieldRecipe
from tools.training.heard import Heard
from tools.training.perceptual_stage import PerceptualRecipe
from tools.training.sync_stage import SyncRecipe
from tools.training.utterances import Cut

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


def write_clip(path: Path, clip: Clip) -> None:
    """As ``tools/prepare_data.py`` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = (clip.sound * 32767).astype(np.int16)
    np.savez(path, frames=clip.data, offsets=clip.offsets, landmarks=clip.landmarks, sound=sound)


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.astype(np.int16).tobytes())


@pytest.fixture(scope="session")
def data(clip, still_clip, tmp_path_factory) -> Path:
    """A folder for ``--data``: three clips of talk in ``talk``, a still in ``portraits``, a second of noise."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("anna_0", "anna_1", "bert_0"):
        write_clip(folder / "talk" / f"{name}.npz", clip)
    write_clip(folder / "portraits" / "still.npz", still_clip)
    (folder / "noise").mkdir()
    write_wav(folder / "noise" / "hiss.wav", np.random.default_rng(2).integers(-3000, 3000, 16_000))
    return folder


@pytest.fixture(scope="session")
def quicken() -> Callable[[Family], Family]:
    """Gives a family's recipes a few steps of few rows, and the folder ``talk`` to learn from."""

    def quicken(family: Family) -> Family:
        few: dict[str, Any] = dict(
            steps=2, polish_steps=1, segments=2, cut=Cut(windows=2), variants=0, synthetic_minutes=0.0
        )
        rows: dict[str, Any] = dict(
            sources=2, targets=1, sync_every=3, sync_sources=1, driven_stills=0.2, moved_stills=0.2
        )
        return replace(
            family,
            speech="talk",
            others=None,
            audio=replace(family.audio, **few),
            deform=DeformRecipe(steps=3, batch=4),
            perceptual=PerceptualRecipe(steps=2, pictures=2),
            sync=SyncRecipe(steps=2, clips=2, moments=3),
            render=replace(family.render, steps=3, **rows),
            finish=replace(family.render, **rows).finishing(2),
            field=FieldRecipe(steps=2, batch=4),
        )

    return quicken
