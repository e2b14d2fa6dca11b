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
MOST_OFFSET_S = 0.5  # the largest lag that is looked for
WINDOW_S = 3.0
MOUTH = (slice(150, 230), slice(80, 176))  # rows, columns of an aligned 256x256 frame
_RECORDER = (Path(__file__).parent / "recorder.js").read_text()


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Mono sound on the page's clock."""

    start_s: float
    samples: np.ndarray  # float32 [n] at RATE_HZ

    @property
    def times_s(self) -> np.ndarray:
        """float64 [n], of each sample."""
        return self.start_s + np.arange(len(self.samples)) / RATE_HZ

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
    frames_per_second: float  # that came
    heard: Sound
    heard_late: Sound  # the same behind a known delay; the control of the measure


def watch_peers(page: Page) -> None:
    """Let the recorder reach the page's peer connections; before the page is opened."""
    page.add_init_script(
        "window.peers = []; window.RTCPeerConnection = class extends RTCPeerConnection {"
        " constructor(...given) { super(...given); window.peers.push(this); } };"
    )


def record_call(page: Page, *, seconds: float, control_delay_s: float) -> Recording:
    """Record what ``#video`` of a page with ``watch_peers`` receives."""
    raw = page.evaluate(_RECORDER, {"seconds": seconds, "controlDelayS": control_delay_s})
    rtp_ms = np.array([f["rtpMs"] for f in raw["frames"]])
    before, after = raw["counts"]
    play_delay_s = raw["playDelayMs"] / 1000
    return Recording(
        frames=[np.asarray(Image.open(io.BytesIO(base64.b64decode(f["jpeg"])))) for f in raw["frames"]],
        frames_per_second=(after["frames"] - before["frames"]) / (after["atMs"] - before["atMs"]) * 1000,
        shown_s=_display_times(rtp_ms, np.array(raw["shown"])) / 1000,
        heard=_join(raw["heard"], play_delay_s),
        heard_late=_join(raw["heardLate"], play_delay_s),
    )


def _display_times(rtp_ms: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """When each frame is displayed, in ms.

    Display times jump by the screen's 16 ms, and the browser now and then misses a frame; the difference to
    the frame's RTP time, a median over a second, has neither fault, and follows a buffer that grows.

    Args:
        rtp_ms: float64 [n], RTP times of all frames.
        shown: float64 [m, 2], RTP and display time of those that were seen to be displayed.
    """
    difference_ms = shown[:, 1] - shown[:, 0]
    padded = np.pad(difference_ms, 12, mode="edge")
    smooth_ms = np.median(np.lib.stride_tricks.sliding_window_view(padded, 25), axis=1)
    return rtp_ms + np.interp(rtp_ms, shown[:, 0], smooth_ms)


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


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where a repeated wav lies in what was heard."""

    correlation: float  # median over the seconds that are not silent, in [0, 1]
    position: np.ndarray  # int64 [heard samples], index into the wav


def find_sent(sent: np.ndarray, heard: Sound) -> Found:
    """Find a repeated wav in what was heard, second by second.

    Second by second, because a browser stretches sound by some milliseconds to ride out jitter.

    Args:
        sent: float32 [n] at RATE_HZ, played over and over.
        heard: any length.
    """
    starts = [start for start in range(0, len(heard.samples) - RATE_HZ + 1, RATE_HZ)]
    loud = [s for s in starts if np.sqrt(np.mean(np.square(heard.samples[s : s + RATE_HZ]))) > 0.01]
    matches = {s: _find_in_loop(sent, heard.samples[s : s + RATE_HZ]) for s in loud}
    assert matches, "nothing but silence was heard"
    instants = np.arange(len(heard.samples))
    # A pause fits anywhere: it lies where the nearest second with sound says.
    nearest = np.array(loud)[np.argmin(np.abs(instants[::1600, None] + 800 - np.array(loud) - RATE_HZ // 2), axis=1)]
    start = np.repeat(nearest, 1600)[: len(instants)]
    shift = np.repeat([matches[s][1] for s in nearest], 1600)[: len(instants)]
    return Found(
        correlation=float(np.median([correlation for correlation, _ in matches.values()])),
        position=(shift + instants - start) % len(sent),
    )


def _find_in_loop(loop: np.ndarray, piece: np.ndarray) -> tuple[float, int]:
    """Where ``piece`` fits best in the endless ``loop``: normalised correlation, and index of its start."""
    n = len(piece)
    tiled = np.resize(loop, len(loop) + n)
    size = 1 << (len(tiled) + n).bit_length()
    products = np.fft.irfft(np.fft.rfft(tiled, size) * np.conj(np.fft.rfft(piece, size)), size)[: len(loop)]
    energy = np.concatenate([[0.0], np.cumsum(np.square(tiled, dtype=np.float64))])
    norms = np.sqrt((energy[n:] - energy[:-n])[: len(loop)]) * np.linalg.norm(piece)
    scores = products / np.maximum(norms, 1e-3 * norms.max())
    shift = int(np.argmax(scores))
    return float(scores[shift]), shift


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A quantity over time, both float64 [n]."""

    times_s: np.ndarray
    values: np.ndarray

    def at(self, times_s: np.ndarray) -> np.ndarray:
        return np.interp(times_s, self.times_s, self.values)


def find_offset(mouth: Trace, reference: Trace) -> Match:
    """How much later the mouth moves than ``reference`` says (lag_s; negative: earlier).

    The median over windows of some seconds: a browser that stumbles for a moment (another program takes
    the processor) is out of step until it has caught up, which says nothing about the sender.
    """
    first = max(mouth.times_s[0], reference.times_s[0]) + MOST_OFFSET_S
    last = min(mouth.times_s[-1], reference.times_s[-1]) - MOST_OFFSET_S
    windows = [np.arange(s, s + WINDOW_S, GRID_S) for s in np.arange(first, last - WINDOW_S, WINDOW_S / 2)]
    movement = np.array([reference.at(times_s).std() for times_s in windows])
    found = [
        _find_offset_in(times_s, mouth, reference)
        for times_s, moves in zip(windows, movement, strict=True)
        if moves > movement.max() / 2  # not in a pause
    ]
    return Match(
        lag_s=float(np.median([match.lag_s for match in found])),
        correlation=float(np.median([match.correlation for match in found])),
    )


def _find_offset_in(times_s: np.ndarray, mouth: Trace, reference: Trace) -> Match:
    expected = reference.at(times_s)
    lags_s = np.arange(-MOST_OFFSET_S, MOST_OFFSET_S + GRID_S / 2, GRID_S)
    moved = [mouth.at(times_s + lag) for lag in lags_s]
    scores = [np.corrcoef(expected, m)[0, 1] if np.ptp(m) > 0 else -1.0 for m in moved]
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
