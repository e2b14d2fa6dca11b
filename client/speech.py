"""Sound on its way to the server: prepared sound in real time, or what a microphone gives."""

from __future__ import annotations

import asyncio
import fractions
import time

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

SOUND_RATE_HZ = 48_000
PACKET = SOUND_RATE_HZ // 50  # samples of 20 ms
_BASE = fractions.Fraction(1, SOUND_RATE_HZ)


class Microphone(MediaStreamTrack):
    """Prepared sound in real time, as a microphone gives it: a packet exists when its last sample does.

    Sample ``i`` is heard at ``started_s + i / 48000``. After its end it is silent.

    Args:
        samples: float32 [n] at 48 kHz.
        repeat: begin again at the end.
    """

    kind = "audio"

    def __init__(self, samples: np.ndarray, *, repeat: bool = False) -> None:
        super().__init__()
        self._samples = (np.clip(samples, -1, 1) * 32_767).astype(np.int16)
        self._repeat = repeat
        self._packet = 0
        self.started_s: float | None = None

    @property
    def packets(self) -> int:
        """How many were asked for."""
        return self._packet

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self.started_s is None:
            self.started_s = time.monotonic()
        start = self._packet * PACKET
        self._packet += 1
        ends_s = self.started_s + (start + PACKET) / SOUND_RATE_HZ
        await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
        heard = cut_packet(self._samples, start, repeat=self._repeat)
        return make_packet(heard, (self._packet - 1) * PACKET)


def cut_packet(samples: np.ndarray, start: int, *, repeat: bool) -> np.ndarray:
    """int16 [PACKET] of ``samples`` from ``start``; silent after the end, or from the beginning again."""
    if repeat:
        start %= max(PACKET, len(samples) // PACKET * PACKET)
    heard = np.zeros(PACKET, np.int16)
    part = samples[start : start + PACKET]
    heard[: len(part)] = part
    return heard


def make_packet(samples: np.ndarray, position: int) -> av.AudioFrame:
    """A frame of int16 [PACKET] mono whose first sample stands at ``position``."""
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE_HZ, position, _BASE
    return frame
