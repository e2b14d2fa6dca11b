"""Sound for training the audio branch, changed: other microphones, levels and noises."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE_HZ = 16_000


def shape_spectrum(sound: Tensor, rng: np.random.Generator) -> Tensor:
    """Give each row of [B, samples] another microphone: smooth random gains of ±6 dB, sometimes a band limit."""
    count, length = sound.shape
    spectrum = torch.fft.rfft(sound)
    knots = torch.from_numpy(rng.uniform(-6, 6, (count, 1, 8)).astype(np.float32))
    gains = torch.nn.functional.interpolate(knots, size=spectrum.shape[-1], mode="linear", align_corners=True)[:, 0]
    frequency = torch.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[-1])
    low = torch.from_numpy(np.where(rng.random(count) < 0.2, rng.uniform(100, 350, count), 0).astype(np.float32))
    high = torch.from_numpy(np.where(rng.random(count) < 0.2, rng.uniform(3200, 7000, count), 9000).astype(np.float32))
    band = torch.sigmoid((frequency - low[:, None]) / 30) * torch.sigmoid((high[:, None] - frequency) / 150)
    return torch.fft.irfft(spectrum * 10 ** (gains / 20) * band, n=length)


def mix(sound: Tensor, noise: Tensor, noisy: float, rng: np.random.Generator) -> Tensor:
    """Add noise of unit power to each row and set its level.

    A share ``noisy`` of the rows stands in noise, 6 to 30 dB below its loud parts; the others in that of a
    fair microphone, 30 to 60 dB below. More of it costs the clear ones dearly: a network of this size that
    hears every row at 12 dB tells the lips of clear speech at 0.78 where 0.87 is had without.
    The level runs from 10 dB below what it was to 10 dB above: quiet and hot microphones.
    """
    count = len(sound)
    loud = sound.pow(2).mean(1, keepdim=True).sqrt().clamp_min(0.01)
    below = np.where(rng.random((count, 1)) < noisy, rng.uniform(6, 30, (count, 1)), rng.uniform(30, 60, (count, 1)))
    ratio = torch.from_numpy(below.astype(np.float32))
    level = torch.from_numpy(rng.uniform(-10, 10, (count, 1)).astype(np.float32))
    return ((sound + noise * loud * 10 ** (-ratio / 20)) * 10 ** (level / 20)).clamp(-1, 1)


def begin_or_end(sound: Tensor, rng: np.random.Generator, share: float = 0.5) -> Tensor:
    """Let a share of the rows of [B, samples] begin, end or both within the row, with silence around.

    Without it what sets in out of silence is speech alone, and a network takes that for its mark.
    """
    count, length = sound.shape
    edges = np.sort(rng.uniform(-0.5, 1.5, (count, 2)), axis=1) * length
    edges[rng.random(count) >= share] = (-1, length)
    at = torch.arange(length)
    begin, end = torch.from_numpy(edges).split(1, dim=1)
    return sound * ((at >= begin) & (at < end))
