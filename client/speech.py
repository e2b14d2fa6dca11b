"""Sound on its way to the server: prepared sound in real time, or what a microphone gives."""

from __future__ import annotations

import asyncio
import fractions
import time
from typing import Protocol

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.audio.window import SampleRing

SOUND_RATE_HZ = 48_000
PACKET = SOUND_RATE_HZ // 50  # samples of 20 ms
HELD_S = 0.5  # of captured sound that nobody takes; the oldest is dropped
STARVED_S = 0.2  # a device that gives nothing for so long is taken to be silent
MAX_BEHIND_S = 0.5  # prepared sound goes on from here after a session was lost, rather than in a rush
_BASE = fractions.Fraction(1, SOUND_RATE_HZ)


class Speech(Protocol):
    """Where sound comes from, across sessions; one track reads it at a time."""

    def restart(self) -> None:
        """A new track begins to read."""

    async def next_packet(self) -> tuple[int, np.ndarray]:
        """Wait for the next packet: its position in samples, rising, and int16 [PACKET]."""


class SpeechTrack(MediaStreamTrack):
    """What a session sends. Its stamps begin at 0 and keep gaps, so that the server knows of them.

    Args:
        speech: read until the track is stopped.
        is_muted: asked for each packet; a muted one is silence.
    """

    kind = "audio"

    def __init__(self, speech: Speech, is_muted: MuteSwitch) -> None:
        super().__init__()
        self._speech, self._switch = speech, is_muted
        self._first: int | None = None
        speech.restart()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        position, samples = await self._speech.next_packet()
        if self._first is None:
            self._first = position
        return make_packet(np.zeros_like(samples) if self._switch.muted else samples, position - self._first)


class MuteSwitch:
    """Whether the speaker wants not to be heard."""

    def __init__(self) -> None:
        self.muted = False


class RecordedSpeech:
    """Prepared sound in real time. It stands still while no track reads it.

    Args:
        samples: float32 [n] at 48 kHz.
        repeat: begin again at the end; else it is silent from there.
    """

    def __init__(self, samples: np.ndarray, *, repeat: bool) -> None:
        self._samples = to_int16(samples)
        self._repeat = repeat
        self._packet = 0
        self._origin_s: float | None = None
        self.ended = asyncio.Event()

    def restart(self) -> None:
        self._origin_s = None

    async def next_packet(self) -> tuple[int, np.ndarray]:
        now_s, start = time.monotonic(), self._packet * PACKET
        if self._origin_s is None or now_s - self._origin_s - (start + PACKET) / SOUND_RATE_HZ > MAX_BEHIND_S:
            self._origin_s = now_s - start / SOUND_RATE_HZ
        await asyncio.sleep(max(0.0, self._origin_s + (start + PACKET) / SOUND_RATE_HZ - now_s))
        self._packet += 1
        if not self._repeat and start >= len(self._samples):
            self.ended.set()
        return start, cut_packet(self._samples, start, repeat=self._repeat)


class CapturedSpeech:
    """What a device captures. Holds HELD_S, drops the oldest; a device that gives nothing is silent."""

    def __init__(self) -> None:
        self._ring = SampleRing(int(HELD_S * SOUND_RATE_HZ), np.int16)
        self._at = 0
        self._came = asyncio.Event()
        self.starved = False
        self.dropped = 0

    def put(self, samples: np.ndarray) -> None:
        """int16 [n] mono at 48 kHz, the next; on the event loop."""
        self._ring.write(self._ring.end, samples)
        self.starved = False
        self._came.set()

    def restart(self) -> None:
        self._at = self._ring.end

    async def next_packet(self) -> tuple[int, np.ndarray]:
        while self._ring.end < self._at + PACKET:
            self._came.clear()
            patience_s = PACKET / SOUND_RATE_HZ if self.starved else STARVED_S
            try:
                await asyncio.wait_for(self._came.wait(), patience_s)
            except TimeoutError:
                self._ring.extend(self._ring.end + int(patience_s * SOUND_RATE_HZ))
                self.starved = True
        if self._at < self._ring.start:
            self.dropped += self._ring.start - self._at
            self._at = self._ring.start
        position, self._at = self._at, self._at + PACKET
        return position, self._ring.read(position, PACKET)


class Microphone(MediaStreamTrack):
    """Prepared sound as one track, for those who measure: a packet exists when its last sample does.

    Sample ``i`` is heard at ``started_s + i / 48000``. After its end it is silent.

    Args:
        samples: float32 [n] at 48 kHz.
        repeat: begin again at the end.
    """

    kind = "audio"

    def __init__(self, samples: np.ndarray, *, repeat: bool = False) -> None:
        super().__init__()
        self._samples = to_int16(samples)
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
        return make_packet(cut_packet(self._samples, start, repeat=self._repeat), start)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] -> int16, clipped."""
    return (np.clip(samples, -1, 1) * 32_767).astype(np.int16)


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
