"""The sound that an agent sends: its format, and its way to 48 kHz without a seam."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np

from server.errors import RequestInvalid
from server.ingest import SOUND_RATE_HZ

LEAST_RATE_HZ, MOST_RATE_HZ = 8_000, 48_000
FORMAT = "s16le"  # 16-bit little-endian mono
SAMPLE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class PcmFormat:
    """Raw samples, 16-bit little-endian mono.

    Raises:
        RequestInvalid: a rate or format that is not taken.
    """

    rate_hz: int
    format: str = FORMAT

    def __post_init__(self) -> None:
        if not LEAST_RATE_HZ <= self.rate_hz <= MOST_RATE_HZ:
            raise RequestInvalid(
                f"rate is {self.rate_hz}: it must be from {LEAST_RATE_HZ} to {MOST_RATE_HZ} samples a second"
            )
        if self.format != FORMAT:
            raise RequestInvalid(f"format is {self.format[:40]!r}: only {FORMAT} is taken, 16-bit little-endian mono")

    def count(self, data: bytes) -> int:
        """Samples in ``data``.

        Raises:
            RequestInvalid: it ends within a sample.
        """
        if len(data) % SAMPLE_BYTES:
            raise RequestInvalid(
                f"a message of sound has {len(data)} bytes: samples have {SAMPLE_BYTES}, so it must be even"
            )
        return len(data) // SAMPLE_BYTES

    def samples_of_ms(self, ms: float) -> int:
        return int(ms * self.rate_hz / 1000)


class Upsampler:
    """int16 at any rate -> int16 at 48 kHz, chunk after chunk as if it were one piece.

    The filter (FFmpeg's) holds back some samples for the next chunk; ``finish`` gives the last ones.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._resampler: av.AudioResampler | None = None

    def convert(self, data: bytes) -> np.ndarray:
        """Whole little-endian samples in, int16 [n] at 48 kHz out."""
        samples = np.frombuffer(data, "<i2").astype(np.int16)
        if self._rate_hz == SOUND_RATE_HZ or not len(samples):
            return samples
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE_HZ)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
        return _join(self._resampler.resample(frame))

    def finish(self) -> np.ndarray:
        """The samples that were held back; the next chunk begins anew."""
        if self._resampler is None:
            return np.zeros(0, np.int16)
        resampler, self._resampler = self._resampler, None
        return _join(resampler.resample(None))

    def forget(self) -> None:
        """Begin anew, and let what was held back go."""
        self._resampler = None


def _join(frames: list[av.AudioFrame]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)])
