"""What the stages are really given: the default portrait saying the sample of speech."""

from __future__ import annotations

import functools
import wave
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engine.api import StepRow, StreamOptions
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


def draw(engine: S3DNerfEngine, thrift: int = 0) -> np.ndarray:
    """The frame after all of the speech, uint8 [256, 256, 3]."""
    avatar = engine.enrol((ASSETS / "default_portrait.jpg").read_bytes())
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
