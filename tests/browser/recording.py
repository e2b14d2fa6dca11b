"""What the browser recorded, and how sound and lips are compared. Times are seconds of the page's clock."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page

RATE_HZ = 16_000  # all sound is compared at this rate
GRID_S = 0.005  # the step of the lag search
MOUTH = (slice(150, 230), slice(80, 176))  # rows, columns of an aligned 256x256 frame
_RECORDER = (Path(__file__).parent / "recorder.js").read_text()


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Mono sound on the page's clock."""

    start_s: float
    samples: np.ndarray  # float32 [n] at RATE_HZ

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.samples) / RATE_HZ

    def envelope(self, times_s: np.ndarray, *, width_s: float = 0.04) -> np.ndarray:
        """Loudness in [0, 1] (60 dB to 1) of the ``width_s`` around each time."""
        power = np.concatenate([[0.0], np.cumsum(np.square(self.samples, dtype=np.float64))])
        centre = (times_s - self.start_s) * RATE_HZ
        half = width_s * RATE_HZ / 2
        left, right = (np.clip(np.round(centre + d), 0, len(self.samples)).astype(int) for d in (-half, half))
        mean = (power[right] - power[left]) / np.maximum(right - left, 1)
        return np.clip(1 + 10 * np.log10(np.maximum(mean, 1e-12)) / 60, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One stretch of a call as the user saw and heard it."""

    frames: list[np.ndarray]  # uint8 [H, W, 3] RGB
    shown_s: np.ndarray  # float64 [frames], when each is displayed
    heard: Sound
    heard_late: Sound  # the same behind a known delay; the control of the measure

    @property
    def frames_per_second(self) -> float:
        """From the first to the last frame that came."""
        return (len(self.shown_s) - 1) / (self.shown_s[-1] - self.shown_s[0])


def record_call(page: Page, *, seconds: float, control_delay_s: float) -> Recording:
    """Record what ``#video`` of the page receives."""
    raw = page.evaluate(_RECORDER, {"seconds": seconds, "controlDelayS": control_delay_s})
    shown = np.array(raw["shown"])
    shown_minus_rtp_ms = np.median(shown[:, 1] - shown[:, 0])
    rtp_ms = np.array([f["rtpMs"] for f in raw["frames"]])
    play_delay_s = raw["playDelayMs"] / 1000
    return Recording(
        frames=[np.asarray(Image.open(io.BytesIO(base64.b64decode(f["jpeg"])))) for f in raw["frames"]],
        shown_s=(rtp_ms + shown_minus_rtp_ms) / 1000,
        heard=_join(raw["heard"], play_delay_s),
        heard_late=_join(raw["heardLate"], play_delay_s),
    )


def _join(blocks: list[dict[str, Any]], play_delay_s: float) -> Sound:
    pcm = [np.frombuffer(base64.b64decode(b["pcm"]), np.int16) for b in blocks]
    samples = np.concatenate(pcm).astype(np.float32) / 32768
    rate_hz = blocks[0]["rateHz"]
    starts_s = np.cumsum([0, *(len(p) for p in pcm[:-1])]) / rate_hz
    # Blocks follow each other without gaps; the median keeps one late callback from moving all of them.
    start_s = float(np.median(np.array([b["atMs"] for b in blocks]) / 1000 - starts_s))
    wanted = np.arange(0, len(samples) / rate_hz, 1 / RATE_HZ)
    return Sound(
        start_s=start_s + play_delay_s,
        samples=np.interp(wanted, np.arange(len(samples)) / rate_hz, samples).astype(np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where a signal fits another best."""

    lag_s: float
    correlation: float  # in [-1, 1]


def find_sent(sent: np.ndarray, heard: Sound) -> tuple[Match, Sound]:
    """Find a repeated wav in what was heard.

    Args:
        sent: float32 [n] at RATE_HZ, played over and over.
        heard: at least as long as ``sent``.

    Returns:
        how well they match, and the sent sound laid on the page's clock.
    """
    n = len(heard.samples)
    period = len(sent)
    tiled = np.resize(sent, n + period)
    size = 1 << (2 * n + period - 1).bit_length()
    spectrum = np.fft.rfft(tiled, size) * np.conj(np.fft.rfft(heard.samples, size))
    scores = np.fft.irfft(spectrum, size)[:period]  # tiled[shift:] against heard
    shift = int(np.argmax(scores))
    placed = tiled[shift : shift + n]
    norm = np.linalg.norm(placed) * np.linalg.norm(heard.samples)
    correlation = float(scores[shift] / max(norm, 1e-12))
    return Match(lag_s=shift / RATE_HZ, correlation=correlation), Sound(start_s=heard.start_s, samples=placed)


def find_offset(shown_s: np.ndarray, opening: np.ndarray, sound: Sound, *, most_s: float = 0.5) -> Match:
    """How much later the picture comes than the sound (lag_s; negative: earlier).

    Args:
        shown_s: float64 [n], display times.
        opening: float64 [n], brightness of the mouth or distance of the lips.
        sound: heard in the same stretch.
        most_s: largest offset that is looked for.
    """
    first, last = max(shown_s[0], sound.start_s) + most_s, min(shown_s[-1], sound.end_s) - most_s
    times_s = np.arange(first, last, GRID_S)
    envelope = sound.envelope(times_s)
    # A frame stands from its time until the next one's; its value holds at its own instant.
    lags_s = np.arange(-most_s, most_s + GRID_S / 2, GRID_S)
    scores = [np.corrcoef(envelope, np.interp(times_s + lag, shown_s, opening))[0, 1] for lag in lags_s]
    best = int(np.argmax(scores))
    return Match(lag_s=float(lags_s[best]), correlation=float(scores[best]))


def mouth_brightness(frames: list[np.ndarray]) -> np.ndarray:
    """Mean grey of the mouth region, [n]: the fake engine's loudness."""
    return np.array([frame[MOUTH].mean() for frame in frames])


def mouth_changes(frames: list[np.ndarray]) -> np.ndarray:
    """Mean absolute change of the mouth region from frame to frame, [n - 1], in grey levels."""
    return np.array(
        [np.abs(b[MOUTH].astype(np.int16) - a[MOUTH]).mean() for a, b in zip(frames, frames[1:], strict=False)]
    )
