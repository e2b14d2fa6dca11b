"""A portrait speaks, pose locked, as live; and its landmarks are found again on the frames."""

from __future__ import annotations

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from engine.landmarks import FaceMesh

SETTLE_FRAMES = 5  # the tracker's first fit, from the detector's box, is some tenths of a pixel off


def render_frames(engine: Engine, avatar: Avatar, samples: np.ndarray, count: int) -> np.ndarray:
    """Frames 0 ... count - 1 of an avatar that speaks ``samples``, in hops of 40 ms; uint8 [count, S, S, 3].

    Sound that is missing at the end is silence. Head sway and blinks are off.
    """
    spec = engine.spec
    padded = np.zeros((count + spec.lookahead_hops - 1) * spec.hop_samples, np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    state = engine.init_state(1)
    state.reset(0, StreamOptions(seed=0, motion=0.0))
    frames = []
    for hop, heard in enumerate(padded.reshape(-1, spec.hop_samples), start=1):
        frame = engine.step([StepRow(slot=0, avatar=avatar, samples=heard)], state)[0]
        if spec.frame_after(hop) >= 0:
            frames.append(frame)
    return np.stack(frames)


def find_landmarks(frames: np.ndarray) -> np.ndarray:
    """Landmarks of frames uint8 [N, S, S, 3] in crop coordinates, float32 [N, 478, 3]; all NaN without a face.

    The first frame is shown ``SETTLE_FRAMES`` times before it counts.
    """
    mesh = FaceMesh(video=True)
    for _ in range(SETTLE_FRAMES):
        mesh.find(frames[0])
    landmarks = np.full((len(frames), 478, 3), np.nan, np.float32)
    for index, frame in enumerate(frames):
        for face in mesh.find(frame)[:1]:
            landmarks[index] = face * 2 / frame.shape[0] - np.array([1, 1, 0])
    mesh.close()
    return landmarks
