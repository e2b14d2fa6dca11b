"""Lip sync measured by our own frozen judge; not SyncNet's score, and not to be compared with it.

Lips of five frames in a row and 320 ms of sound are embedded; the mean cosine is looked up for every offset of
lips against sound up to 15 frames. As in SyncNet's confidence, the score is the best one minus the median of
all: about nothing where lips do not follow the sound, whatever they look like.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.sync_discriminator import SyncDiscriminator, crop_lips, lip_boxes, load_judge, log_mel
from tools.training.sync_rows import sound_around

REACH_FRAMES = 15
LEAST_FRAMES = 50  # 2 s: less does not tell
ROWS = 16  # of lips that are looked at together
LEVEL = 0.3  # loudness, root mean square of the loudest tenth of the frames, at which the judge learned to hear


class SyncFigure(NamedTuple):
    score: float  # in [0, 2]: mean cosine at the best offset minus the median over all offsets
    offset_frames: int  # at which it is best; above nothing the lips come late


def measure_sync(frames: np.ndarray, landmarks: np.ndarray, samples: np.ndarray) -> SyncFigure | None:
    """How well lips go with sound, and how late they are.

    Args:
        frames: uint8 [N, 256, 256, 3], aligned crops at 25 fps.
        landmarks: float32 [N, 478, 3], crop coordinates; rows of NaN where no face was found.
        samples: float32 16 kHz, beginning with the first frame.

    Returns:
        None where there are fewer than two seconds with a face, or no sound.

    Raises:
        CheckpointError: the judge's weights are missing or damaged.
    """
    return compare_with(_shipped_judge(), frames, landmarks, samples)


@cache
def _shipped_judge() -> SyncDiscriminator:
    return load_judge()


@torch.inference_mode()
def compare_with(
    judge: SyncDiscriminator, frames: np.ndarray, landmarks: np.ndarray, samples: np.ndarray
) -> SyncFigure | None:
    """``measure_sync`` with a judge of one's own."""
    firsts = windows_with_face(landmarks, judge.frames)
    level = loudness(samples)
    if len(firsts) < LEAST_FRAMES or level == 0:
        return None
    grey = torch.stack([torch.from_numpy(frame).float().mean(2) for frame in frames])[:, None] / 127.5 - 1
    points = torch.from_numpy(landmarks.astype(np.float32))
    parts = np.split(firsts, range(ROWS, len(firsts), ROWS))
    e_l = torch.cat([_embed_lips(judge, grey, points, part) for part in parts])
    middles = np.arange(len(frames))
    e_a = judge.embed_sound(log_mel(torch.from_numpy(sound_around(samples * (LEVEL / level), middles))))
    return best_offset(e_l @ e_a.T, firsts + judge.frames // 2)


def best_offset(score: Tensor, middles: np.ndarray) -> SyncFigure:
    """From cosines [lips, sound of every frame] and the frame in the middle of each row of lips."""
    means = []
    offsets = range(-REACH_FRAMES, REACH_FRAMES + 1)
    for offset in offsets:
        heard = middles - offset
        inside = (heard >= 0) & (heard < score.shape[1])
        means.append(float(score[np.flatnonzero(inside), heard[inside]].mean()))
    best = int(np.argmax(means))
    return SyncFigure(means[best] - float(np.median(means)), offsets[best])


def windows_with_face(landmarks: np.ndarray, frames: int) -> np.ndarray:
    """First frames of all runs of ``frames`` frames that show a face."""
    found = np.isfinite(landmarks).all((1, 2))
    if len(found) < frames:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.lib.stride_tricks.sliding_window_view(found, frames).all(1))


def loudness(samples: np.ndarray) -> float:
    """Root mean square of the loudest tenth of the frames."""
    whole = samples[: len(samples) // 640 * 640].reshape(-1, 640)
    if len(whole) == 0:
        return 0.0
    power = np.sort((whole.astype(np.float64) ** 2).mean(1))
    return float(np.sqrt(power[-max(1, len(power) // 10) :].mean()))


def _embed_lips(judge: SyncDiscriminator, grey: Tensor, landmarks: Tensor, firsts: np.ndarray) -> Tensor:
    """Embeddings of the rows of T frames from each of ``firsts`` on."""
    rows = (firsts[:, None] + np.arange(judge.frames)).ravel()
    lips = crop_lips(grey[rows], lip_boxes(landmarks[rows], judge.frames))
    return judge.embed_grey(lips.unflatten(0, (-1, judge.frames))[:, :, 0])
