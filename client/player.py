"""Received sound -> what a device plays, sample by sample when it is due.

The device asks for its next samples by its own crystal; the timeline says what is due at the instant at
which they will be heard. The two differ by some ten parts in a million, and the timeline itself moves a
little. So sound is read a touch faster or slower, between its samples, rather than cut.
"""

from __future__ import annotations

import threading

import numpy as np

from client.skew import SkewGauge
from client.timeline import RATE_HZ, Timeline
from engine.audio.window import SampleRing

HELD_S = 2.0  # received and not yet played
MAX_RATE = 0.06  # sound is played at most so much faster or slower; more than the timeline ever moves
CATCH_UP_S = 0.5  # in which a small error is made good
JUMP_S = 0.15  # a larger one is cut or waited out
SMOOTH = 0.1  # share of a new error in the smoothed one: callbacks come some milliseconds early or late
_RATE_HZ = RATE_HZ["audio"]
_AROUND = np.arange(-1, 3)  # samples that one between two of them is drawn from


class Player:
    """Sound by media time, read by one device. Called from two threads. Holds the newest HELD_S, drops the oldest.

    Args:
        gauge: told how late sound leaves.
    """

    def __init__(self, gauge: SkewGauge) -> None:
        self._gauge = gauge
        self._lock = threading.Lock()
        self._timeline: Timeline | None = None
        self._ring = SampleRing(1)
        self._at: float | None = None  # position that is read next, of sound since media time 0
        self._error = 0.0  # smoothed; samples that reading is behind
        self.jumps = 0

    def start(self, timeline: Timeline | None) -> None:
        """Begin with a new session, or with None: silence."""
        with self._lock:
            self._timeline, self._at, self._error = timeline, None, 0.0
            self._ring = SampleRing(int(HELD_S * _RATE_HZ))

    def put(self, ticks: int, samples: np.ndarray) -> None:
        """float32 [n] at 48 kHz that begins ``ticks`` after media time 0."""
        if ticks >= 0:
            with self._lock:
                self._ring.write(ticks, samples)

    def pull(self, count: int, leaves_s: float, rate_hz: float = _RATE_HZ) -> np.ndarray:
        """float32 [count] at ``rate_hz``: what is to be heard from ``leaves_s`` (monotonic) on.

        Silence where there is nothing.
        """
        with self._lock:
            due_s = None if self._timeline is None else self._timeline.leaving_s(leaves_s)
            if due_s is None:
                return np.zeros(count, np.float32)
            return self._read(count, due_s * _RATE_HZ, _RATE_HZ / rate_hz)

    def _read(self, count: int, due: float, stride: float) -> np.ndarray:
        if self._at is None:
            self._at = due
        error = due - self._at
        if abs(error) > JUMP_S * _RATE_HZ:
            self._at, self._error, error = due, 0.0, 0.0
            self.jumps += 1
        self._error += SMOOTH * (error - self._error)
        # Reading behind what is due means that sound leaves late.
        self._gauge.sound_left(self._error / _RATE_HZ)
        stride *= 1 + max(-MAX_RATE, min(MAX_RATE, self._error / (CATCH_UP_S * _RATE_HZ)))
        places = self._at + np.arange(count) * stride
        self._at += count * stride
        return draw_between(self._ring, places)


def draw_between(ring: SampleRing, places: np.ndarray) -> np.ndarray:
    """float32 [n]: a ring's sound at any ``places`` [n], rising, in samples: a cubic through four (Catmull-Rom)."""
    whole = np.floor(places).astype(np.int64)
    first, count = int(whole[0]) - 1, int(whole[-1] - whole[0]) + 4
    unborn = max(0, min(-first, count))  # before position 0
    held = np.concatenate([np.zeros(unborn, np.float32), ring.read(first + unborn, count - unborn)])
    t = (places - whole)[:, None].astype(np.float32)
    before, left, right, after = held[(whole - first)[:, None] + _AROUND].T[:, :, None]
    bend = t * (2 * before - 5 * left + 4 * right - after + t * (3 * (left - right) + after - before))
    return (left + 0.5 * t * (right - before + bend))[:, 0].astype(np.float32)
