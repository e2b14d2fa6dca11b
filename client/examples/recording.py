"""What the examples saw and heard, as an MP4 file."""

from __future__ import annotations

import fractions
from pathlib import Path

import av
import numpy as np

FPS = 25


class Recording:
    """Writes pictures, 25 a second, and 48 kHz mono sound as they come; ``close`` finishes the file."""

    def __init__(self, path: Path, size: tuple[int, int] = (256, 256)) -> None:
        self._file = av.open(str(path), "w")
        self._video = self._file.add_stream("libx264", rate=FPS)
        self._video.width, self._video.height = size
        self._video.pix_fmt = "yuv420p"
        self._audio = self._file.add_stream("aac", rate=48_000, layout="mono")
        self.pictures = self.samples = 0

    def picture(self, rgb: np.ndarray) -> None:
        """uint8 [H, W, 3]."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = self.pictures, fractions.Fraction(1, FPS)
        self.pictures += 1
        self._file.mux(self._video.encode(frame))

    def sound(self, samples: np.ndarray, *, at_s: float | None = None) -> None:
        """int16 [n], at ``at_s`` of the file or after what came before."""
        if at_s is not None:
            self.samples = max(self.samples, int(at_s * 48_000))
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self.samples, fractions.Fraction(1, 48_000)
        self.samples += len(samples)
        self._file.mux(self._audio.encode(frame))

    def close(self) -> None:
        for stream in (self._video, self._audio):
            self._file.mux(stream.encode(None))
        self._file.close()
