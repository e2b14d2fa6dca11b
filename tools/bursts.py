"""Bursts of speech, and how they are found again in sound and in a mouth. Pure: arrays in, figures out.

Times are seconds on one monotonic clock. A *trace* is a pair of float arrays (times, values), times rising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SOUND_RATE_HZ = 48_000
SPEECH_RATE_HZ = 16_000
BURST_S = 0.4
CYCLE_S = 1.2  # from one burst to the next: the mouth rests again, whatever delay up to 0.6 s
JITTER_S = 0.04  # bursts come this much irregularly, so that they meet every place between two frames
FIRST_S = 3.0  # the connection settles before the first burst
PEAK = 0.5  # loudest sample of a burst
EVEN_S, EVEN_MOST = 0.02, 4.0  # a burst is made evenly loud over such stretches, by this factor at most
FADE_S = 0.005
BLOCK_S = 0.0025  # of a loudness trace
LONGEST_DELAY_S = 0.7
STEP_S = 0.001  # of the delays that are tried
LEAST_FIT = 0.6  # correlation under which a burst counts as not found
SHOWN_PART = 0.25  # of the way from rest to its farthest: from there on a mouth has visibly begun to move
MOUTH = (slice(145, 220), slice(76, 180))  # rows, columns of an aligned 256 px frame that hold any mouth


class Trace(NamedTuple):
    """A curve over time."""

    times_s: np.ndarray  # [N], rising
    values: np.ndarray  # [N]


class Fit(NamedTuple):
    """How late a curve is, and how well it is the expected one."""

    delay_s: float
    correlation: float


@dataclass(frozen=True, kw_only=True)
class BurstSound:
    """Silence with bursts in it."""

    samples: np.ndarray  # float32 [N] at 48 kHz
    onsets_s: np.ndarray  # [B], where each burst begins
    kinds: np.ndarray  # [B] int, which of the cuts it is


def cut_bursts(speech: np.ndarray, count: int = 4) -> list[np.ndarray]:
    """The ``count`` stretches of BURST_S that are loud throughout, apart from each other.

    Args:
        speech: float32 [n] at 16 kHz.

    Returns:
        float32 [BURST_S * 48000] each: evenly loud, peak PEAK, 5 ms fades, so that the onset is known to a few ms.

    Raises:
        ValueError: the speech is too short or silent.
    """
    length, step = round(BURST_S * SPEECH_RATE_HZ), SPEECH_RATE_HZ // 100
    blocks = np.abs(speech[: len(speech) // step * step]).reshape(-1, step).max(1)
    span = length // step
    if len(blocks) < span:
        raise ValueError(f"{len(speech) / SPEECH_RATE_HZ:.2f} s of speech hold no burst of {BURST_S} s")
    quietest = np.lib.stride_tricks.sliding_window_view(blocks, span).min(1).astype(np.float64)
    cuts: list[np.ndarray] = []
    while len(cuts) < count and quietest.max() > 0:
        start = int(quietest.argmax())
        cuts.append(_finish(speech[start * step : start * step + length]))
        quietest[max(0, start - span) : start + span] = 0
    if not cuts:
        raise ValueError("the speech is silent; give a recording of a voice")
    return cuts


def place_bursts(cuts: Sequence[np.ndarray], seconds: float, seed: int = 0) -> BurstSound:
    """Bursts through ``seconds`` of silence, the cuts in turn, from FIRST_S on; at least one of each."""
    count = max(len(cuts), int((seconds - FIRST_S) / CYCLE_S))
    onsets_s = FIRST_S + CYCLE_S * np.arange(count) + np.random.default_rng(seed).uniform(0, JITTER_S, count)
    samples = np.zeros(round((FIRST_S + CYCLE_S * count + 1) * SOUND_RATE_HZ), np.float32)
    starts = np.round(onsets_s * SOUND_RATE_HZ).astype(int)
    kinds = np.arange(count) % len(cuts)
    for start, kind in zip(starts, kinds, strict=True):
        samples[start : start + len(cuts[kind])] = cuts[kind]
    return BurstSound(samples=samples, onsets_s=starts / SOUND_RATE_HZ, kinds=kinds)


def measure_loudness(samples: np.ndarray, start_s: float = 0.0) -> Trace:
    """Root mean square in blocks of 2.5 ms at 48 kHz; ``start_s`` is the first sample's time."""
    size = round(BLOCK_S * SOUND_RATE_HZ)
    blocks = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    times_s = start_s + (np.arange(len(blocks)) + 0.5) * BLOCK_S
    return Trace(times_s, np.sqrt((blocks * blocks).mean(1)))


def cut_mouth(frame: np.ndarray) -> np.ndarray:
    """The part of a frame, uint8 [S, S, 3], that holds the mouth: uint8 [h, w] grey."""
    side = frame.shape[0]
    rows, columns = (slice(s.start * side // 256, s.stop * side // 256) for s in MOUTH)
    return frame[rows, columns].mean(-1).astype(np.uint8)


def measure_motion(mouths: np.ndarray) -> np.ndarray:
    """How far each mouth is from rest: mean grey difference to the median picture.

    Args:
        mouths: uint8 [N, h, w], at rest in more than half of them.

    Returns:
        float64 [N].
    """
    rest = np.median(mouths[:: max(1, len(mouths) // 500)], axis=0)
    return np.array([np.abs(mouth - rest).mean() for mouth in mouths])


def fit_delay(seen: Trace, expected: Trace, *, longest_s: float = LONGEST_DELAY_S) -> Fit | None:
    """The delay at which ``seen`` is most like ``expected``, tried in steps of 1 ms.

    Outside of its times ``expected`` holds its first and last value.

    Returns:
        None when ``seen`` is too short or still, or like ``expected`` at no delay.
    """
    if len(seen.values) < 8 or np.ptp(seen.values) < 1e-9:
        return None
    delays_s = np.arange(0, longest_s + STEP_S / 2, STEP_S)
    at_s = seen.times_s[None] - delays_s[:, None]
    curves = np.interp(at_s, expected.times_s, expected.values)  # [delays, N]
    curves = curves - curves.mean(1, keepdims=True)
    values = seen.values - seen.values.mean()
    norm = np.sqrt((curves**2).sum(1) * (values**2).sum())
    correlation = np.where(norm > 1e-12, curves @ values / np.maximum(norm, 1e-12), -1)
    best = int(correlation.argmax())
    if correlation[best] < LEAST_FIT:
        return None
    # The summit may be flat where samples are sparse: its middle, not its first step.
    summit = np.flatnonzero(correlation >= correlation[best] - 1e-6)
    return Fit(float(delays_s[summit].mean()), float(correlation[best]))


def find_first_shown(seen: Trace) -> float | None:
    """Time of the first value SHOWN_PART of the way from rest (the lowest tenth) to the highest."""
    if len(seen.values) < 3:
        return None
    rest = float(np.percentile(seen.values, 10))
    high = float(seen.values.max())
    if high - rest < 1e-9:
        return None
    return float(seen.times_s[np.argmax(seen.values >= rest + SHOWN_PART * (high - rest))])


def select(trace: Trace, from_s: float, to_s: float) -> Trace:
    """The part of a trace within [from_s, to_s)."""
    inside = (trace.times_s >= from_s) & (trace.times_s < to_s)  # a jittery network may leave times not quite rising
    return Trace(trace.times_s[inside], trace.values[inside])


def _finish(cut: np.ndarray) -> np.ndarray:
    fine = np.interp(np.arange(len(cut) * 3) / 3, np.arange(len(cut)), cut)
    size = round(EVEN_S * SOUND_RATE_HZ)
    power = np.convolve(np.pad(fine * fine, size, mode="reflect"), np.hanning(size) / np.hanning(size).sum(), "same")
    loudness = np.sqrt(power[size:-size])
    fine = fine / np.maximum(loudness, loudness.max() / EVEN_MOST)
    fade = np.minimum(1, np.arange(len(fine)) / (FADE_S * SOUND_RATE_HZ))
    fine = fine * fade * fade[::-1]
    return (fine / np.abs(fine).max() * PEAK).astype(np.float32)
