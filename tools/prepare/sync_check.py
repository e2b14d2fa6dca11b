"""Whether a clip's lips go with its sound, found without a trained network.

A short linear filter over the sound's bands foretells how far the mouth is open; what it foretells is
correlated with the real opening at every shift up to 15 frames. The filter was fitted by ridge regression
on 400 clips of one GRID speaker and is the same for everybody: it knows only that open mouths are loud
around 2 to 4 kHz and that mouths open a little before the sound. Sentences of three seconds often fit nearly
as well at a wrong shift, so that a clip is judged only where the evidence is clear, and clips of one
speaker are judged together as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.landmarks import eye_distance, mouth_opening

SAMPLES_PER_FRAME = 640
MAX_LAG = 15  # frames searched either way
MAX_OFFSET = 3  # frames that lips may be off
BAND_EDGES_HZ = (100, 300, 500, 800, 1200, 1800, 2500, 3500, 5000, 7500)
WINDOW = 960  # samples, centred on the frame's middle
FLOOR = 1e-4  # of a band's loudest frame; what is quieter counts as silence

# [frames -2..2, bands]
FILTER = np.array(
    [
        [-0.098, -0.081, +0.040, +0.043, -0.026, -0.007, +0.090, +0.009, +0.006],
        [+0.045, -0.026, +0.139, +0.030, -0.044, +0.014, +0.174, +0.056, -0.030],
        [+0.055, -0.042, +0.127, -0.014, -0.050, +0.001, +0.202, +0.115, -0.044],
        [+0.029, -0.094, +0.036, -0.001, +0.016, -0.028, +0.132, +0.084, -0.038],
        [-0.031, -0.111, -0.050, +0.035, +0.059, -0.059, +0.048, +0.038, +0.015],
    ]
)

MIN_FRAMES = 50  # shorter clips are not judged alone
MARGIN = 0.2  # by which a far shift's correlation must exceed the best near 0
MIN_CORRELATION = 0.35  # of that far shift
STILL_LIPS = 0.012  # standard deviation of the opening in eye distances; GRID's clips have 0.028 and more
MIN_LOUD_S = 1.0
LOUD_RMS = 0.006  # -44 dBFS
SILENT_PEAK = 0.001  # -60 dBFS
UNRELATED_FRAMES = 250  # from here on a clip's sound must have something to do with its lips
UNRELATED_CORRELATION = 0.1
POOL_FRAMES = 500  # clips of one speaker are judged together from 20 s on
POOL_MARGIN = 0.08
POOL_AGREE = 0.7  # of the clips must say so themselves


@dataclass(frozen=True)
class SyncCurve:
    """How well lips and sound fit when the lips are moved."""

    correlations: np.ndarray  # float32 [31], lips late by -15..15 frames; nan where it cannot be told
    frames: int

    @property
    def lag(self) -> int:
        """Frames by which the lips are late."""
        return int(np.argmax(self.correlations)) - MAX_LAG

    @property
    def margin(self) -> float:
        """How much better a shift beyond ``MAX_OFFSET`` fits than any within; negative speaks for in sync."""
        near = slice(MAX_LAG - MAX_OFFSET, MAX_LAG + MAX_OFFSET + 1)
        return float(np.delete(self.correlations, np.arange(31)[near]).max() - self.correlations[near].max())


def measure_sync(landmarks: np.ndarray, sound: np.ndarray) -> SyncCurve:
    """Correlate a clip's mouth with its sound.

    Args:
        landmarks: [n, 478, 3] in any unit.
        sound: float32 [samples] in [-1, 1], 16 kHz, sample 0 at frame 0.
    """
    opening = mouth_opening(landmarks) / eye_distance(landmarks)
    count = len(opening)
    if count <= 2 * MAX_LAG or opening.std() == 0:
        return SyncCurve(np.full(2 * MAX_LAG + 1, np.nan, np.float32), count)
    bands = np.pad(_bands(sound, count), ((2, 2), (0, 0)), mode="edge")
    foretold = sum(bands[i : i + count] @ weights for i, weights in enumerate(FILTER))
    lags = range(-MAX_LAG, MAX_LAG + 1)
    curve = [_pearson(opening[max(0, k) : count + min(0, k)], foretold[max(0, -k) : count - max(0, k)]) for k in lags]
    return SyncCurve(np.array(curve, np.float32), count)


def judge_clip(landmarks: np.ndarray, sound: np.ndarray, curve: SyncCurve) -> str | None:
    """Why a clip's sound and lips disagree, or None where they agree or too little is known."""
    if not len(sound) or np.abs(sound).max() < SILENT_PEAK:
        return "its sound is silent"
    frames = sound[: len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    loud_s = float((np.sqrt((frames**2).mean(1)) > LOUD_RMS).mean()) * len(frames) / 25
    moved = float((mouth_opening(landmarks) / eye_distance(landmarks)).std())
    if loud_s >= MIN_LOUD_S and moved < STILL_LIPS:
        return f"the lips hardly move ({moved:.3f} eye distances) while there is sound for {loud_s:.1f} s"
    if curve.frames < MIN_FRAMES or np.isnan(curve.correlations).any():
        return None
    best = float(curve.correlations.max())
    if curve.margin > MARGIN and best > MIN_CORRELATION:
        return f"{_describe(curve.lag)}: correlation {best:.2f} there, {best - curve.margin:.2f} in sync"
    if curve.frames >= UNRELATED_FRAMES and best - max(0.0, curve.margin) < UNRELATED_CORRELATION:
        return f"sound and lips have nothing in common (correlation {best - max(0.0, curve.margin):.2f} near sync)"
    return None


def judge_speaker(curves: list[SyncCurve]) -> str | None:
    """Why all clips of a speaker are out of sync by the same time, or None."""
    curves = [c for c in curves if not np.isnan(c.correlations).any()]
    frames = sum(c.frames for c in curves)
    if len(curves) < 2 or frames < POOL_FRAMES:
        return None
    pooled = SyncCurve(np.average([c.correlations for c in curves], 0, [c.frames for c in curves]), frames)
    agree = np.mean([c.correlations[pooled.lag + MAX_LAG] > c.correlations[MAX_LAG] for c in curves])
    if pooled.margin <= POOL_MARGIN or agree < POOL_AGREE:
        return None
    return f"{_describe(pooled.lag)} in {len(curves)} clips of this speaker together ({frames / 25:.0f} s)"


def _describe(lag: int) -> str:
    return f"the lips are {'late' if lag > 0 else 'early'} by {abs(lag)} frames ({abs(lag) * 40} ms)"


def _bands(sound: np.ndarray, count: int) -> np.ndarray:
    """Log energies of the bands of each frame, standardised over the clip: [count, 9]."""
    reach = (WINDOW - SAMPLES_PER_FRAME) // 2
    needed = count * SAMPLES_PER_FRAME + 2 * reach
    padded = np.zeros(needed, np.float32)
    inside = sound[: needed - reach]
    padded[reach : reach + len(inside)] = inside
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::SAMPLES_PER_FRAME]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW))) ** 2
    bins = np.searchsorted(np.fft.rfftfreq(WINDOW, 1 / 16_000), BAND_EDGES_HZ)
    energy = np.stack([power[:, a:b].sum(1) for a, b in zip(bins, bins[1:], strict=False)], 1)
    logs = np.log(np.maximum(energy, np.maximum(energy.max(0) * FLOOR, 1e-12)))
    return (logs - logs.mean(0)) / logs.std(0).clip(1e-3)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
