"""What the stages are really given: the default portrait saying the sample of speech."""

from __future__ import annotations

import dataclasses
import functools
import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.api import Avatar, StepRow, StreamOptions
from engine.avatar_file import read_avatar
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.engine import S3DNerfEngine

ASSETS = DEFAULT_CHECKPOINT.parent
HOP = 640
QUIET_HOPS = 26  # before the sample's first word
HOPS = 12  # the last of which is drawn, with the mouth open


def speech() -> np.ndarray:
    """Float32 [HOPS, HOP]."""
    with wave.open(str(ASSETS / "sample_speech.wav")) as file:
        file.setpos(QUIET_HOPS * HOP)
        samples = np.frombuffer(file.readframes(HOPS * HOP), np.int16)
    return samples.astype(np.float32).reshape(HOPS, HOP) / 32768


def default_avatar(engine: S3DNerfEngine) -> Avatar:
    """The default portrait's, from the file ``VISAVIS_TEST_AVATAR`` where that is set: a machine with a GPU may lack
    MediaPipe, without which nobody can be enrolled."""
    kept = os.environ.get("VISAVIS_TEST_AVATAR")
    if kept:
        avatar = read_avatar(Path(kept)).avatar
        assert avatar is not None and avatar.fingerprint == engine.fingerprint, f"{kept} is of another checkpoint"
        return avatar
    pytest.importorskip("mediapipe", reason="MediaPipe is missing; name an avatar's file in VISAVIS_TEST_AVATAR")
    return engine.enrol((ASSETS / "default_portrait.jpg").read_bytes())


@torch.inference_mode()
def mirrored(engine: S3DNerfEngine, avatar: Avatar) -> Avatar:
    """Another face: the mirrored one's tensors, with the first one's landmarks, which are as good for a comparison."""
    crop = np.ascontiguousarray(avatar.crop[:, ::-1])
    picture = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    identity = engine._model.enrol(picture, torch.from_numpy(avatar.arrays["landmarks"])[None])
    changed = {
        "crop": crop,
        "planes": identity.planes[0].half().numpy(),
        "aggregate": identity.aggregate[0].numpy(),
        "shallow": identity.shallow[0].half().numpy(),
        "cutout": np.ascontiguousarray(avatar.arrays["cutout"][:, ::-1]),
    }
    return dataclasses.replace(avatar, arrays={**avatar.arrays, **changed})


def draw(engine: S3DNerfEngine, thrift: int = 0) -> np.ndarray:
    """The frame after all of the speech, uint8 [256, 256, 3]."""
    avatar = default_avatar(engine)
    state = engine.init_state(1)
    state.reset(0, StreamOptions(seed=7))
    rows = [StepRow(slot=0, avatar=avatar, samples=hop, thrift=thrift) for hop in speech()]
    return [engine.step([row], state)[0] for row in rows][-1]


@functools.cache
def drawn() -> dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Each stage's arguments and eager results for that frame."""
    engine = S3DNerfEngine(backend="eager")
    seen: dict[str, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}

    def watched(name: str, stage: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        def run(*arguments: Tensor) -> tuple[Tensor, ...]:
            given = tuple(x.clone() for x in arguments)
            results = stage(*arguments)
            seen[name] = given, tuple(x.clone() for x in results)
            return results

        return run

    engine._stages = {name: watched(name, stage) for name, stage in engine._stages.items()}
    for thrift in (0, 1):
        draw(engine, thrift)
    return seen


def relative_errors(given: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The largest and the mean difference, in parts of the largest value wanted."""
    assert given.shape == wanted.shape and given.dtype == torch.float32 and given.device.type == "cpu"
    error = (given - wanted).abs() / wanted.abs().max()
    return float(error.max()), float(error.mean())
