"""Sounds that move no lips: noises, music, birds, machines; made here, or cut from recordings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.signal import butter, sosfilt
from torch import Tensor

from tools.training.phones import SAMPLE_RATE_HZ

Maker = Callable[[int, np.random.Generator], np.ndarray]


def coloured_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """From white to brown, sometimes swelling: air, wind, traffic, hiss."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    row = np.fft.irfft(spectrum / (1 + np.arange(len(spectrum))) ** rng.uniform(0, 1), length)
    if rng.random() < 0.4:
        row = row * _slow(length, rng, rng.uniform(0.3, 6))
    return row


def hum(length: int, rng: np.random.Generator) -> np.ndarray:
    """Mains, fans and motors: steady harmonics with a little noise."""
    time = np.arange(length) / SAMPLE_RATE_HZ
    pitch = rng.uniform(40, 240)
    row = sum(
        rng.uniform(0, 1) / n * np.sin(2 * np.pi * pitch * n * time + rng.uniform(0, 6)) for n in range(1, 12)
    ) + 0.05 * rng.standard_normal(length)
    return np.asarray(row)


def engine(length: int, rng: np.random.Generator) -> np.ndarray:
    """Engines, sirens, horns and saws: a buzz whose pitch glides, through resonances that stay or drift slowly."""
    time = np.arange(length) / SAMPLE_RATE_HZ
    glide = np.interp(time, np.linspace(0, time[-1], 4), np.cumsum(rng.uniform(-0.3, 0.3, 4)))
    pitch = rng.uniform(20, 400) * np.exp(glide)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    buzz = np.diff(np.floor(phase / (2 * np.pi)), prepend=0) + rng.uniform(0, 0.2) * rng.standard_normal(length)
    row = rng.uniform(0, 0.5) * buzz
    for _ in range(rng.integers(1, 5)):
        middle = np.exp(rng.uniform(np.log(150), np.log(6000)))
        width = middle * rng.uniform(0.05, 0.5)
        band = np.clip([middle - width / 2, middle + width / 2], 40, 7900)
        part = sosfilt(butter(1, band, "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), buzz)
        row = row + part / (part.std() + 1e-6) * buzz.std() * rng.uniform(0.3, 2) * _slow(length, rng, 0.7)
    rumble = coloured_noise(length, rng)
    return row + rumble / (rumble.std() + 1e-6) * row.std() * rng.uniform(0, 1)


def footsteps(length: int, rng: np.random.Generator) -> np.ndarray:
    """Steps, doors, things set down: dull thuds that ring in a room, some of them double."""
    row = np.zeros(length)
    cut_hz, apart = rng.uniform(200, 3500), rng.uniform(0.3, 1.1)
    sos = butter(2, cut_hz, "lowpass", fs=SAMPLE_RATE_HZ, output="sos")
    at = rng.uniform(0, apart)
    while at < length / SAMPLE_RATE_HZ:
        for beat in (0.0, rng.uniform(0.05, 0.18))[: 1 + int(rng.random() < 0.5)]:
            size = int(rng.uniform(0.04, 0.35) * SAMPLE_RATE_HZ)
            begin = min(length, int((at + beat) * SAMPLE_RATE_HZ))
            burst = rng.standard_normal(size) * np.exp(-np.arange(size) / size * rng.uniform(3, 7))
            row[begin : begin + size] += burst[: length - begin] * rng.uniform(0.2, 1)
        at += apart * rng.uniform(0.85, 1.15)
    return sosfilt(sos, row) + 0.05 * row + rng.uniform(0, 0.01) * coloured_noise(length, rng)


def knocks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Keyboards, taps, drums: short decaying bursts, with or without a beat."""
    row = np.zeros(length)
    beat = rng.uniform(0.08, 0.6) * SAMPLE_RATE_HZ
    at = rng.uniform(0, beat)
    while at < length:
        size = int(rng.uniform(0.005, 0.2) * SAMPLE_RATE_HZ)
        burst = rng.standard_normal(size) * np.exp(-np.arange(size) / size * rng.uniform(3, 8))
        if rng.random() < 0.5:
            burst = burst * 0.2 + np.sin(2 * np.pi * rng.uniform(50, 900) * np.arange(size) / SAMPLE_RATE_HZ) * np.exp(
                -np.arange(size) / size * 5
            )
        begin, end = int(at), min(length, int(at) + size)
        row[begin:end] += burst[: end - begin] * rng.uniform(0.2, 1)
        at += beat * (1 if rng.random() < 0.7 else rng.uniform(0.2, 2))
    return row + 0.001 * rng.standard_normal(length)


def birds(length: int, rng: np.random.Generator) -> np.ndarray:
    """Whistled chirps between 1.5 and 7 kHz, sweeping and trilling."""
    row = np.zeros(length)
    at = 0.0
    while at < length:
        size = int(rng.uniform(0.03, 0.4) * SAMPLE_RATE_HZ)
        part = np.linspace(0, 1, size)
        pitch = rng.uniform(1500, 6000) * (1 + rng.uniform(-0.4, 0.4) * part)
        pitch = pitch * (
            1 + rng.uniform(0, 0.15) * np.sin(2 * np.pi * rng.uniform(5, 60) * size / SAMPLE_RATE_HZ * part)
        )
        tone = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ)
        tone = tone + rng.uniform(0, 0.3) * np.sin(4 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ)
        begin, end = int(at), min(length, int(at) + size)
        row[begin:end] += (tone * np.sin(np.pi * part) ** rng.uniform(0.3, 2))[: end - begin] * rng.uniform(0.3, 1)
        at += size + rng.exponential(0.25) * SAMPLE_RATE_HZ
    return row + rng.uniform(0, 0.03) * coloured_noise(length, rng)


def chords(length: int, rng: np.random.Generator) -> np.ndarray:
    """Plucked and sustained notes that decay: piano, bells, guitars."""
    time = np.arange(length) / SAMPLE_RATE_HZ
    row = np.zeros(length)
    for _ in range(rng.integers(1, 6)):
        pitch, start = rng.uniform(80, 3000), rng.uniform(-0.3, length / SAMPLE_RATE_HZ)
        envelope = np.where(time < start, 0, np.exp(-np.maximum(time - start, 0) * rng.uniform(0.2, 6)))
        sweep = 1 + rng.uniform(-0.2, 0.2) * time * (rng.random() < 0.3)
        for harmonic in range(1, rng.integers(2, 8)):
            row += envelope * np.sin(2 * np.pi * pitch * harmonic * sweep * time + rng.uniform(0, 6)) / harmonic
    return row


def orchestra(length: int, rng: np.random.Generator) -> np.ndarray:
    """Several voices of bowed or blown notes in a key: bright harmonics, vibrato, body resonances."""
    root, row = rng.uniform(40, 52), np.zeros(length)
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if rng.random() < 0.5 else [0, 2, 3, 5, 7, 8, 11])
    for _ in range(rng.integers(2, 9)):
        line = _melody(length, rng, root + 12 * rng.integers(0, 4), scale)
        sos = butter(1, np.sort(rng.uniform(150, 5000, 2) + [0, 400]), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
        row += (line + rng.uniform(0.3, 2) * sosfilt(sos, line)) * rng.uniform(0.2, 1)
    if rng.random() < 0.3:
        row += knocks(length, rng) * row.std() * rng.uniform(0.5, 3)
    return row


def _melody(length: int, rng: np.random.Generator, low: float, scale: np.ndarray) -> np.ndarray:
    pitch, gain = np.zeros(length), np.zeros(length)
    beat = rng.uniform(0.08, 0.7)
    at = 0
    while at < length:
        size = int(beat * rng.choice([0.5, 1, 1, 2, 4]) * SAMPLE_RATE_HZ) + 200
        note = low + rng.choice(scale) + 12 * rng.integers(0, 2)
        end = min(length, at + size)
        pitch[at:end] = 440 * 2 ** ((note - 69) / 12)
        part = np.linspace(0, 1, size)[: end - at]
        swell = np.minimum(1, part / rng.uniform(0.02, 0.4)) * np.minimum(1, (1 - part) / rng.uniform(0.02, 0.3))
        gain[at:end] = swell * rng.uniform(0.3, 1) * (rng.random() < 0.9)
        at = end
    time = np.arange(length) / SAMPLE_RATE_HZ
    vibrato = 1 + rng.uniform(0, 0.012) * np.sin(2 * np.pi * rng.uniform(4, 7) * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch * vibrato) / SAMPLE_RATE_HZ + rng.uniform(0, 6)
    fall = rng.uniform(0.6, 1.6)
    row = np.zeros(length)
    for harmonic in range(1, 14):
        audible = pitch * harmonic < SAMPLE_RATE_HZ / 2
        row += audible * np.sin(harmonic * phase) / harmonic**fall
    return row * gain + rng.uniform(0, 0.05) * rng.standard_normal(length) * gain


def _slow(length: int, rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    knots = rng.uniform(0.05, 1, max(4, int(length / SAMPLE_RATE_HZ * rate_hz) + 2))
    return np.interp(np.linspace(0, len(knots) - 1, length), np.arange(len(knots)), knots)


MAKERS: tuple[tuple[Maker, float], ...] = (
    (coloured_noise, 0.18),
    (hum, 0.05),
    (engine, 0.17),
    (footsteps, 0.1),
    (knocks, 0.08),
    (birds, 0.1),
    (chords, 0.1),
    (orchestra, 0.22),
)
RECORDED = 0.4  # share of the rows that are cut from recordings


def make_row(length: int, recordings: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One row of unit power, float32 [length]; RECORDED of them are cut from recordings where there are any."""
    if recordings and rng.random() < RECORDED:
        source = recordings[rng.integers(len(recordings))]
        start = rng.integers(max(1, len(source) - length))
        row = np.resize(source[start : start + length], length).astype(np.float64)
    else:
        makers, shares = zip(*MAKERS, strict=True)
        row = makers[rng.choice(len(makers), p=shares)](length, rng)
    return (row / (np.sqrt((row**2).mean()) + 1e-6)).astype(np.float32)


class NoiseBank:
    """A store of rows, made once; each draw cuts a random part of random rows."""

    def __init__(self, rows: int, length: int, recordings: list[np.ndarray], rng: np.random.Generator) -> None:
        self._rows = torch.from_numpy(np.stack([make_row(3 * length, recordings, rng) for _ in range(rows)]))
        self._length = length

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """[count, length], of about unit power."""
        picks = zip(rng.integers(0, len(self._rows), count), rng.integers(0, 2 * self._length, count), strict=True)
        return torch.stack([self._rows[row, start : start + self._length] for row, start in picks])
