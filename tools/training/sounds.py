"""Windows of sound for training the audio branch: other throats, rooms, microphones and noises."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE_HZ = 16_000


def cut_windows(sound: Tensor, ends: Tensor, speed: Tensor, window: int, lookahead: int) -> Tensor:
    """Cut windows that play ``speed`` times as fast about their frame's instant (pitch and formants move, sync stays).

    Args:
        sound: float32 [samples], all clips with silence between them.
        ends: int64 [B], each window's end at speed 1, that is the frame's instant + lookahead.
        speed: float32 [B], about 0.8 to 1.25.
        window, lookahead: samples.

    Returns:
        float32 [B, window].
    """
    steps = torch.arange(window) - (window - lookahead)
    at = (ends - lookahead)[:, None] + steps * speed[:, None]
    at = at.clamp(0, len(sound) - 2)
    low = at.long()
    part = at - low
    return sound[low] * (1 - part) + sound[low + 1] * part


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


def make_noise(count: int, length: int, recordings: list[np.ndarray], rng: np.random.Generator) -> Tensor:
    """Noise of unit power, [count, length]: coloured, recorded, or sustained chords (music without speech)."""
    rows = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4 or (kind < 0.6 and not recordings):
            spectrum = np.fft.rfft(rng.standard_normal(length))
            row = np.fft.irfft(spectrum / (1 + np.arange(len(spectrum))) ** rng.uniform(0, 1), length)
        elif kind < 0.6:
            source = recordings[rng.integers(len(recordings))]
            start = rng.integers(max(1, len(source) - length))
            row = np.resize(source[start : start + length], length)
        else:
            row = _chord(length, rng)
        rows.append(row / (np.sqrt((row**2).mean()) + 1e-6))
    return torch.from_numpy(np.stack(rows).astype(np.float32))


class NoiseBank:
    """A store of noise rows, made once; each draw cuts a random part of random rows."""

    def __init__(self, rows: int, length: int, recordings: list[np.ndarray], rng: np.random.Generator) -> None:
        self._rows = make_noise(rows, 3 * length, recordings, rng)
        self._length = length

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """[count, length], of about unit power."""
        picks = zip(rng.integers(0, len(self._rows), count), rng.integers(0, 2 * self._length, count), strict=True)
        return torch.stack([self._rows[row, start : start + self._length] for row, start in picks])


def _chord(length: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(length) / SAMPLE_RATE_HZ
    row = np.zeros(length)
    for _ in range(rng.integers(1, 6)):
        pitch, start = rng.uniform(80, 3000), rng.uniform(-0.3, 1.8)
        envelope = np.where(time < start, 0, np.exp(-np.maximum(time - start, 0) * rng.uniform(0.2, 6)))
        sweep = 1 + rng.uniform(-0.2, 0.2) * time * (rng.random() < 0.3)
        for harmonic in range(1, rng.integers(2, 8)):
            row += envelope * np.sin(2 * np.pi * pitch * harmonic * sweep * time + rng.uniform(0, 6)) / harmonic
    return row


def mix(sound: Tensor, noise: Tensor, rng: np.random.Generator) -> Tensor:
    """Add noise of unit power at 3 to 35 dB below the loud parts of each row, and set the row's level.

    The level runs from 26 dB below full scale's tenth to full scale: quiet and hot microphones.
    """
    count = len(sound)
    loud = sound.pow(2).mean(1, keepdim=True).sqrt().clamp_min(0.01)
    ratio = torch.from_numpy(rng.uniform(3, 35, (count, 1)).astype(np.float32))
    level = torch.from_numpy(rng.uniform(-14, 8, (count, 1)).astype(np.float32))
    return ((sound + noise * loud * 10 ** (-ratio / 20)) * 10 ** (level / 20)).clamp(-1, 1)
