"""Any audio track -> the session's sound, placed on its media clock.

Two copies are kept by position: 48 kHz for the way back to the peer, and hops of 16 kHz for the
engine. Microphones stop, stall, jump and lie about time; the rules are few:

- A packet is placed by its own timestamp. A gap before it was lost on the way: it stays silent.
- Sound that is later than ``patience_ms`` is not waited for: the engine hears silence in its place and
  the clock goes on. When the sound comes after all, it still goes out to the peer, if it is not too
  late for that as well. While nothing at all arrives, silence is heard in real time.
- A source whose timestamps stay more than MAX_ERROR_S away from real time (it was paused, replaced, or
  sends faster than it speaks) is placed anew, so that it ends now. The clock never jumps and never
  runs ahead of real time; what cannot be placed is dropped, the oldest first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.audio.window import SampleRing
from server.media_clock import SAMPLE_RATE_HZ, MediaClock

log = logging.getLogger(__name__)

SOUND_RATE_HZ = 48_000  # of what the peer gets back
RATIO = SOUND_RATE_HZ // SAMPLE_RATE_HZ
HOP = 640  # samples at 16 kHz; one frame
KEEP_S = 2.0  # of sound, for the delayed way back
CONTIGUOUS = SOUND_RATE_HZ // 200  # a packet whose time is off by less than 5 ms continues the one before
MAX_ERROR_S = 0.3  # timestamps further from real time than this are not believed ...
REPLACE_AFTER_S = 0.5  # ... when nothing better came for so long; a burst after a stall is over by then
MAX_PACKET_S = 0.5  # one packet longer than this is cut, the oldest part first
FADE = SOUND_RATE_HZ // 200  # 5 ms: sound that is cut off at once clicks
_LONG = int(MAX_PACKET_S * SOUND_RATE_HZ)


class Intake:
    """Places 48 kHz sound on the clock and hands out hops. Pure: it is told the time.

    Args:
        clock: of the session.
        sound: where 48 kHz sound is kept, by position * RATIO.
        patience_ms: how long after its time a hop waits for its sound.
    """

    def __init__(self, clock: MediaClock, sound: SampleRing, *, patience_ms: int) -> None:
        self.sound = sound
        self.muted = False
        self.dropped_samples = 0  # 48 kHz samples that arrived and found no place
        self._clock = clock
        self._patience = patience_ms * SAMPLE_RATE_HZ // 1000
        self._decimator = Decimator()
        self._heard = 0  # 16 kHz position up to which sound is complete, or known to be lost
        self._closed = 0  # hops handed out
        self._shift: int | None = None  # 48 kHz: position minus the source's own timestamp
        self._next: int | None = None  # where the source's next sample goes if nothing is missing
        self._wrong_since_s: float | None = None
        self._stalled = True  # nothing arrives: silence is heard in real time

    @property
    def heard(self) -> int:
        """16 kHz position up to which sound has arrived or been given up."""
        return self._heard

    @property
    def placed(self) -> int | None:
        """48 kHz position where the newest packet ends; None before the first."""
        return self._next

    def push(self, timestamp: int, samples: np.ndarray, now_s: float) -> None:
        """Take a packet.

        Args:
            timestamp: the source's time of its first sample, in 48 kHz samples.
            samples: int16 [n], 48 kHz mono.
            now_s: when it arrived.
        """
        if len(samples) > _LONG:
            self.dropped_samples += len(samples) - _LONG
            timestamp, samples = timestamp + len(samples) - _LONG, samples[-_LONG:]
        start = self._place(timestamp, len(samples), now_s)
        end = start + len(samples)
        error_s = self._clock.lateness_s(end // RATIO, now_s)
        if abs(error_s) > MAX_ERROR_S:
            if self._wrong_since_s is None:
                self._wrong_since_s = now_s
            if error_s < 0 or now_s - self._wrong_since_s > REPLACE_AFTER_S:
                self._shift = self._next = None
                start = self._place(timestamp, len(samples), now_s)
                end = start + len(samples)
                self._stalled = False
        else:
            self._wrong_since_s = None
            self._stalled = False
            self._clock.observe(end // RATIO, now_s)
        self._next = end
        self._store(start, np.zeros_like(samples) if self.muted else samples, now_s)
        self._heard = max(self._heard, end // RATIO)

    def schedule(self, samples: np.ndarray) -> None:
        """Put int16 [3 n] at the first position that has not been heard: of a source that has no time of its own
        and keeps the clock's. It sees to it that it stays near the clock."""
        start = self._heard * RATIO
        self.sound.write(start, np.zeros_like(samples) if self.muted else samples)
        self._heard += len(samples) // RATIO
        self._next = self._heard * RATIO
        self._stalled = False

    def hush(self, gone: int) -> None:
        """Make all sound from the 48 kHz position ``gone`` on silent, with a short fade before it."""
        self._decimator = Decimator()
        start = max(gone, self.sound.start)
        count = self.sound.end - start
        if count > 0:
            tail = self.sound.read(start, count)
            fade = min(FADE, count)
            tail[:fade] = (tail[:fade] * np.linspace(1, 0, fade)).astype(np.int16)
            tail[fade:] = 0
            self.sound.write(start, tail)

    def begin_anew(self) -> None:
        """Another source speaks from now on, with timestamps of its own."""
        self._shift = self._next = self._wrong_since_s = None

    def hops(self, now_s: float) -> Iterator[tuple[int, np.ndarray]]:
        """Hops whose sound is complete or given up by now: ``(hop, float32 [640] in [-1, 1])``."""
        self._clock.advance(now_s)
        expected = self._clock.position(now_s)
        if not self._stalled and expected - self._heard > self._patience:
            self._stalled = True
        waited_for = expected if self._stalled else expected - self._patience
        self._heard = max(self._heard, waited_for)
        while (self._closed + 1) * HOP <= self._heard:
            raw = self.sound.read(self._closed * HOP * RATIO, HOP * RATIO)
            yield self._closed, self._decimator.decimate(raw)
            self._closed += 1

    def _place(self, timestamp: int, count: int, now_s: float) -> int:
        """48 kHz position of a packet's first sample."""
        if self._shift is None:
            end = max(0, self._clock.position(now_s)) * RATIO
            self._shift = max(0, end - count) - timestamp
            self._wrong_since_s = None
            self._clock.forget()
        start = timestamp + self._shift
        if self._next is not None and abs(start - self._next) < CONTIGUOUS:
            start = self._next
        return start

    def _store(self, start: int, samples: np.ndarray, now_s: float) -> None:
        """Keep what has not left yet and is not of the future."""
        oldest = max(0, self._clock.leaving(now_s) * RATIO)
        newest = (self._clock.position(now_s) + int(MAX_ERROR_S * SAMPLE_RATE_HZ)) * RATIO + _LONG
        cut = min(len(samples), max(0, oldest - start))
        self.dropped_samples += cut
        if start + cut < newest and cut < len(samples):
            self.sound.write(start + cut, samples[cut:])


def make_sound_ring() -> SampleRing:
    """Room for the sound of one session, int16 at 48 kHz."""
    return SampleRing(int(KEEP_S * SOUND_RATE_HZ), np.int16)


class Decimator:
    """48 kHz int16 -> 16 kHz float32, one chunk after the other, without a seam.

    A windowed-sinc low pass (63 taps, 7.2 kHz) whose delay of 31 samples (0.65 ms) is left in: it is a
    sixtieth of a frame, and taking it out would cost a packet of waiting.
    """

    TAPS, CUTOFF_HZ = 63, 7_200

    def __init__(self) -> None:
        n = np.arange(self.TAPS) - self.TAPS // 2
        kernel = np.sinc(2 * self.CUTOFF_HZ / SOUND_RATE_HZ * n) * np.blackman(self.TAPS)
        self._kernel = (kernel / kernel.sum()).astype(np.float32)
        self._tail: np.ndarray = np.zeros(self.TAPS - 1, np.float32)

    def decimate(self, samples: np.ndarray) -> np.ndarray:
        """int16 [3 n] -> float32 [n] in [-1, 1]."""
        assert len(samples) % RATIO == 0
        joined = np.concatenate((self._tail, samples.astype(np.float32) / 32_768))
        self._tail = joined[len(samples) :]
        return np.convolve(joined, self._kernel, "valid")[::RATIO]


async def listen(track: MediaStreamTrack, intake: Intake, arrived: Callable[[], None]) -> None:
    """Feed a track into ``intake`` until it ends; ``arrived`` is called after every packet.

    Any rate, layout and sample format is taken; a packet that cannot be converted is skipped.
    """
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE_HZ)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        assert isinstance(frame, av.AudioFrame)
        base = frame.time_base or Fraction(1, frame.sample_rate)
        timestamp = int((frame.pts or 0) * base * SOUND_RATE_HZ)
        try:
            pieces = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        except (ValueError, av.FFmpegError) as error:  # the source changed its format in mid-stream
            log.info("a packet of sound was skipped: %s", error)
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE_HZ)
            continue
        if pieces:
            intake.push(timestamp, np.concatenate(pieces), time.monotonic())
        arrived()
