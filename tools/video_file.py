"""Frames and sound -> an H.264 + AAC mp4 that is complete or absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from engine.errors import EngineUnavailable, FileError
from engine.mark import MP4_METADATA, xmp_box
from tools.files import replacing
from tools.sound_file import SoundBlock

AAC_RATES_HZ = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
# What AAC's standard layouts hold; other counts are mixed down to stereo.
_LAYOUT_OF_CHANNELS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
_BT709 = 1  # the code points of H.273 for primaries, transfer and matrix
_LIMITED = 1


@contextmanager
def new_mp4(path: Path, *, width: int, height: int, fps: int) -> Iterator[Mp4Writer]:
    """A writer whose file stands at ``path`` once the block has ended well, and not before.

    The file carries the machine-readable mark (``engine/mark.py``) and begins with its index
    (``+faststart``).

    Raises:
        FileError: the path cannot be written, now or while writing.
        EngineUnavailable: this PyAV has no H.264 encoder.
    """
    with replacing(path, "video") as temporary:
        writer = Mp4Writer(temporary, width=width, height=height, fps=fps)
        try:
            yield writer
            writer.finish()
        except av.FFmpegError as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise FileError(f"cannot write the video {str(path)!r}: {reason}") from error
        finally:
            writer.close()
        with temporary.open("ab") as file:
            file.write(xmp_box())


class Mp4Writer:
    """Writes one mp4. Frames stand at k / fps; sound begins at 0 and keeps its rate and channels if AAC has them.

    Args:
        path: file to write over.
        width, height: of the frames in pixels, even.
        fps: frames a second.
    """

    def __init__(self, path: Path, *, width: int, height: int, fps: int) -> None:
        self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata.update(MP4_METADATA)
        try:
            self._video = cast(av.VideoStream, self._container.add_stream(_h264_encoder(), rate=fps))
        except (av.FFmpegError, ValueError):
            self._container.close()
            raise
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.options = {"crf": "17", "preset": "fast"}
        context = self._video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._fps, self._frames = fps, 0
        # Streams must all be known before the first packet, and the sound's kind comes with its first block.
        self._sound: _SoundTrack | None = None
        self._early: list[av.Packet] = []

    def write_frame(self, frame: np.ndarray) -> None:
        """uint8 [H, W, 3] RGB: the next frame."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        picture.pts, picture.time_base = self._frames, Fraction(1, self._fps)
        self._frames += 1
        self._mux(self._video.encode(picture))

    def write_sound(self, block: SoundBlock) -> None:
        """The next stretch of sound. The first block decides the track's rate and channels."""
        if self._sound is None:
            self._sound = _SoundTrack(self._container, block)
        self._mux(self._sound.encode(block))

    def finish(self) -> None:
        """Drain the encoders and write the index."""
        if self._sound is not None:
            self._mux(self._sound.drain())
        self._mux(self._video.encode(None))
        self._mux([], last=True)
        self._container.close()

    def close(self) -> None:
        """Let go of the file; after ``finish`` this does nothing."""
        self._container.close()

    def _mux(self, packets: list[av.Packet], *, last: bool = False) -> None:
        self._early += packets
        if self._sound is not None or last:
            self._container.mux(self._early)
            self._early = []


class _SoundTrack:
    """One AAC stream; blocks of any rate and layout become its own."""

    def __init__(self, container: av.container.OutputContainer, first: SoundBlock) -> None:
        channels = first.samples.shape[1]
        layout = _LAYOUT_OF_CHANNELS.get(channels, "stereo")
        rate_hz = next((r for r in AAC_RATES_HZ if r >= first.rate_hz), AAC_RATES_HZ[-1])
        self._stream = container.add_stream("aac", rate=rate_hz)
        self._stream.layout = layout
        # AAC holds at most 6 bits a sample and channel. FFmpeg's encoder needs most of them at low rates:
        # at 3 bits speech of 22 kHz came back with 21 dB of signal to noise, at 4.5 with 34 dB.
        self._stream.bit_rate = min(160_000, rate_hz * 9 // 2) * self._stream.channels
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[str, int] | None = None
        self._samples = 0

    def encode(self, block: SoundBlock) -> list[av.Packet]:
        packets: list[av.Packet] = []
        if (block.layout, block.rate_hz) != self._source:
            packets += self._encode(self._resampler.resample(None) if self._resampler else [])
            self._resampler = av.AudioResampler("fltp", self._stream.layout, self._stream.rate)
            self._source = (block.layout, block.rate_hz)
        assert self._resampler is not None
        frame = _to_frame(block)
        return packets + self._encode(self._resampler.resample(frame))

    def drain(self) -> list[av.Packet]:
        packets = self._encode(self._resampler.resample(None) if self._resampler else [])
        return packets + self._stream.encode(None)

    def _encode(self, frames: list[av.AudioFrame]) -> list[av.Packet]:
        packets: list[av.Packet] = []
        for frame in frames:
            frame.pts, frame.time_base = self._samples, Fraction(1, self._stream.rate)
            self._samples += frame.samples
            packets += self._stream.encode(frame)
        return packets


def _to_frame(block: SoundBlock) -> av.AudioFrame:
    """A packed float frame whose layout has places, so that FFmpeg can mix it."""
    samples, layout = block.samples, block.layout
    channels = samples.shape[1]
    if layout.endswith("channels"):  # a count without places: take the usual ones
        if channels not in _LAYOUT_OF_CHANNELS:
            samples, channels = samples[:, :2], 2
        layout = _LAYOUT_OF_CHANNELS[channels]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="flt", layout=layout)
    frame.sample_rate = block.rate_hz
    return frame


def _h264_encoder() -> str:
    if "libx264" in av.codecs_available:
        return "libx264"
    for name in ("libopenh264", "h264"):
        try:
            if av.codec.Codec(name, "w").type == "video":
                return name
        except (ValueError, av.FFmpegError):
            continue
    raise EngineUnavailable("this build of PyAV has no H.264 encoder: install av from PyPI (pip install av)")
