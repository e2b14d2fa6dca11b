"""Moments of clips for the lip-sync discriminator: lips in a row and the sound about the middle one, changed."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.landmarks import CROP_SIZE
from engine.s3dnerf.sync_discriminator import (
    HEARD_SAMPLES,
    LIP_HEIGHT,
    LIP_WIDTH,
    MEL_BANDS,
    MEL_STEPS,
    lip_boxes,
    log_power,
    mel_power,
)
from tools.training.clips import SAMPLES_PER_FRAME, Clip

KEPT_PX = 128  # side of the grey box about the mouth that is kept of each frame
APART = 3  # frames between moments of a clip: closer ones look and sound alike


class GreyMouths(NamedTuple):
    """A clip's pictures as the judge needs them."""

    pictures: np.ndarray  # uint8 [n, 128, 128]
    corner: np.ndarray  # [2], px, the same for all frames


def grey_mouths(clip: Clip) -> GreyMouths:
    middle = (clip.landmarks[:, [13, 14], :2].mean((0, 1)) + 1) / 2 * CROP_SIZE
    corner = np.clip(np.round(middle) - KEPT_PX // 2, 0, CROP_SIZE - KEPT_PX).astype(int)
    left, top = corner
    grey = [clip.frame(i)[top : top + KEPT_PX, left : left + KEPT_PX].mean(2) for i in range(len(clip))]
    return GreyMouths(np.stack(grey).astype(np.uint8), corner)


def sound_around(sound: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The 320 ms whose middle is a frame's: float32 [len(frames), 5120]; beyond the ends there is silence."""
    half = HEARD_SAMPLES // 2
    least, most = int(frames.min()), int(frames.max())
    before = max(0, half - least * SAMPLES_PER_FRAME)
    after = max(0, (most + 1) * SAMPLES_PER_FRAME + half - len(sound))
    padded = np.pad(sound, (before, after)).astype(np.float32)
    firsts = frames * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2 - half + before
    return np.stack([padded[first : first + HEARD_SAMPLES] for first in firsts.tolist()])


class SyncRows:
    """Draws G clips and M moments of each.

    Args:
        clips: at least one, each of at least M * 3 + T frames.
        noises: recordings without speech, float32 16 kHz, perhaps none.
        groups: G.
        moments: M.
        frames: T.
    """

    def __init__(self, clips: list[Clip], noises: list[np.ndarray], groups: int, moments: int, frames: int) -> None:
        self._clips = [clip for clip in clips if len(clip) >= moments * APART + frames]
        if not self._clips:
            raise ValueError(f"no clip is as long as {moments * APART + frames} frames; take longer ones")
        self._noises = [noise for noise in noises if len(noise) > HEARD_SAMPLES]
        self._groups, self._moments, self._frames = groups, moments, frames
        self._seen: dict[int, GreyMouths] = {}

    def draw(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """``lips`` [G * M, T, 48, 64] grey in [-1, 1] and ``mel`` [G * M, 80, 32]."""
        lips, sound = [], []
        for which in rng.integers(0, len(self._clips), self._groups).tolist():
            clip = self._clips[which]
            if which not in self._seen:
                self._seen[which] = grey_mouths(clip)
            last = len(clip) - self._frames
            firsts = rng.choice(np.arange(rng.integers(APART), last + 1, APART), self._moments, replace=False)
            change = change_view(rng)
            lips += [self._lips(clip, self._seen[which], int(first), change, rng) for first in firsts]
            sound.append(sound_around(clip.sound, firsts + self._frames // 2))
        power = mel_power(torch.from_numpy(np.concatenate(sound)))
        mel = log_power(self._change_sound(power, rng))
        return dict(lips=torch.from_numpy(np.stack(lips)), mel=mel)

    def _lips(
        self, clip: Clip, seen: GreyMouths, first: int, change: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Grey lips of T frames from ``first`` on, float32 [T, 48, 64] in [-1, 1]."""
        rows = slice(first, first + self._frames)
        box = lip_boxes(torch.from_numpy(clip.landmarks[rows]), self._frames)[0].numpy()
        x0, y0, x1, y1 = ((box.reshape(2, 2) + 1) / 2 * CROP_SIZE - seen.corner).ravel()
        from_crop = np.array([[(x1 - x0) / LIP_WIDTH, 0, x0], [0, (y1 - y0) / LIP_HEIGHT, y0], [0, 0, 1]])
        from_crop = from_crop @ change
        from_crop[:2, 2] += from_crop[:2, :2] @ [0.5, 0.5] - 0.5  # OpenCV counts from the first pixel's middle
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size, edge = (LIP_WIDTH, LIP_HEIGHT), cv2.BORDER_REPLICATE
        cut = [cv2.warpAffine(p, from_crop[:2], size, flags=how, borderMode=edge) for p in seen.pictures[rows]]
        return change_grey(np.stack(cut), rng)

    def _change_sound(self, power: Tensor, rng: np.random.Generator) -> Tensor:
        """Other throats and speeds, a tilt of the spectrum, noise, and gain, all of them in energy: [B, 80, 32]."""
        rows = len(power)
        heard = change_throat(power, rng)
        tilt = rng.normal(0, 0.5, (rows, 1, 1)) * np.linspace(-1, 1, MEL_BANDS)[None, :, None]
        heard = heard * torch.from_numpy(10**tilt).float()
        if self._noises:
            heard = heard + self._noise(heard, rng)
        return heard * torch.from_numpy(10 ** rng.uniform(-1.0, 0.8, (rows, 1, 1))).float()

    def _noise(self, power: Tensor, rng: np.random.Generator) -> Tensor:
        """Energy of noises, 0 to 30 dB below the loudest moment, for half of the rows."""
        which = [self._noises[i] for i in rng.integers(0, len(self._noises), len(power)).tolist()]
        firsts = [int(rng.integers(0, len(noise) - HEARD_SAMPLES)) for noise in which]
        cut = [noise[first : first + HEARD_SAMPLES] for noise, first in zip(which, firsts, strict=True)]
        noise = mel_power(torch.from_numpy(np.stack(cut)))
        loud = power.mean((1, 2), keepdim=True) / (noise.mean((1, 2), keepdim=True) + 1e-8)
        level = 10 ** -rng.uniform(0, 3, (len(power), 1, 1)) * (rng.random((len(power), 1, 1)) < 0.5)
        return noise * loud * torch.from_numpy(level).float()


def change_view(rng: np.random.Generator) -> np.ndarray:
    """Another place, size and tilt of the lip crop, perhaps mirrored: [3, 3], crop pixels of the old from the new."""
    tilt, scale = rng.uniform(-0.12, 0.12), np.exp(rng.uniform(-0.15, 0.15))
    aspect = np.exp(rng.uniform(-0.1, 0.1))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) @ np.diag(
        [scale * aspect, scale / aspect]
    )
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1, 1])
    middle = np.array([LIP_WIDTH, LIP_HEIGHT]) / 2
    shift = middle + rng.uniform(-4, 4, 2) - turn @ middle
    return np.concatenate([np.concatenate([turn, shift[:, None]], 1), [[0, 0, 1]]])


def change_grey(lips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tone, light from a side, softness and grain: uint8 [T, H, W] -> float32 in [-1, 1]."""
    x = (lips.astype(np.float32) / 255) ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    across, down = np.linspace(-1, 1, x.shape[2]) * rng.uniform(-0.3, 0.3), np.linspace(-1, 1, x.shape[1])
    x = x * (1 + across + down[:, None] * rng.uniform(-0.2, 0.2)).astype(np.float32)
    if rng.random() < 1 / 3:
        width = rng.uniform(0.3, 1.2)
        x = np.stack([cv2.GaussianBlur(picture, (0, 0), width) for picture in x])
    x += rng.standard_normal(x.shape, np.float32) * np.float32(rng.uniform(0, 0.02))
    return np.clip(x * 2 - 1, -1, 1)


def change_throat(power: Tensor, rng: np.random.Generator) -> Tensor:
    """Formants up to a quarter higher or lower, and up to a tenth faster or slower about the middle: [B, 80, 32]."""
    rows = len(power)
    formants = torch.from_numpy(np.exp(rng.uniform(-0.25, 0.25, (rows, 1)))).float()
    speed = torch.from_numpy(np.exp(rng.uniform(-0.1, 0.1, (rows, 1)))).float()
    mel = torch.linspace(0, 1, MEL_BANDS) * 2800 + 64  # of the bands' middles, about
    hz = 700 * (10 ** (mel / 2595) - 1)
    warped = (2595 * torch.log10(1 + hz * formants / 700) - 64) / 2800 * 2 - 1  # [B, 80]
    time = torch.linspace(-1, 1, MEL_STEPS) * speed  # [B, 32]
    grid = torch.stack(torch.broadcast_tensors(time[:, None, :], warped[:, :, None]), -1)
    return F.grid_sample(power[:, None], grid, align_corners=True, padding_mode="border")[:, 0]
