"""Small pictures and sounds for the tests of the tools, made on the spot."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image


def portrait_jpeg(width: int = 320, height: int = 240) -> bytes:
    """A smooth picture without a face; the fake engine takes anything."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def bursts(seconds: float, rate_hz: int) -> np.ndarray:
    """float32 [n]: 300 Hz in bursts that begin and end at odd moments, quiet between."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    loud = ((t % 0.83) > 0.31) & ((t % 0.83) < 0.64)
    return (np.sin(2 * np.pi * 300 * t) * np.where(loud, 0.6, 0.002)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    """16-bit PCM of float [n] or [n, channels]."""
    samples = samples if samples.ndim == 2 else samples[:, None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return path


def write_encoded(path: Path, samples: np.ndarray, rate_hz: int, codec: str, layout: str) -> Path:
    """Float [n] in every channel, by any codec and container of PyAV."""
    channels = av.AudioLayout(layout).nb_channels
    packed = np.ascontiguousarray(np.repeat(samples[:, None], channels, axis=1).reshape(1, -1), np.float32)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = rate_hz
    with av.open(str(path), "w") as container:
        stream = cast(av.AudioStream, container.add_stream(codec, rate=rate_hz))
        stream.layout = layout
        resampler = av.AudioResampler(stream.format, layout, rate_hz)
        done = 0  # without times AAC's priming would not be marked, and be heard as a delay
        for part in resampler.resample(frame):
            part.pts, done = done, done + part.samples
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def write_silent_video(path: Path, frames: int = 5) -> Path:
    """A video without an audio stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for level in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * level, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def read_frames(path: Path) -> list[np.ndarray]:
    """All frames, uint8 [H, W, 3] RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
