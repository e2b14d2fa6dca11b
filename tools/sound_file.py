"""Any file with sound that PyAV reads -> blocks of float samples, and the 16 kHz mono that engines hear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from engine.errors import AudioUnreadable
from tools.files import check_readable

_VOICE_CHANNELS = 3  # front left, front right, centre: where films and calls keep the voice
_TEXT_FORMATS = ("tty", "bin", "xbin")  # FFmpeg would play a .txt as a film of a terminal


@dataclass(frozen=True, kw_only=True)
class SoundBlock:
    """A stretch of decoded sound."""

    samples: np.ndarray  # float32 [n, channels] in [-1, 1], finite
    rate_hz: int
    layout: str  # PyAV's name, e.g. "stereo"; "3 channels" where the file names no places

    @property
    def seconds(self) -> Fraction:
        return Fraction(len(self.samples), self.rate_hz)


class SoundFile:
    """The first audio stream of a file, decoded a block at a time; memory does not grow with length.

    Damaged packets are left out, as players do, and counted in ``damaged_packets``. Timestamps are not
    looked at: the samples follow each other without gaps, and the picture follows the samples.

    Args:
        path: audio or video file of any container, codec, rate and number of channels.

    Raises:
        FileError: the path cannot be read.
        AudioUnreadable: no media file, or one without sound.
    """

    def __init__(self, path: Path) -> None:
        check_readable(path, "audio file")
        self._name = repr(path.name)
        self.damaged_packets = 0
        if path.stat().st_size == 0:
            raise AudioUnreadable(f"the audio file {self._name} is empty (0 bytes): record or export it again")
        try:
            # With "file:" a name such as "concat:a" stays a name. Metadata of any encoding must not stop us.
            self._container = av.open(f"file:{path}", metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioUnreadable(
                f"{self._name} is no audio or video file that can be read ({_reason(error)}): "
                "give WAV, MP3, OGG, FLAC, M4A, MP4 or the like"
            ) from error
        if self._container.format.name in _TEXT_FORMATS:
            self.close()
            raise AudioUnreadable(f"{self._name} is text, no audio or video file: give WAV, MP3, OGG, FLAC or the like")
        if not self._container.streams.audio:
            kinds = ", ".join(sorted({s.type for s in self._container.streams})) or "nothing"
            self.close()
            raise AudioUnreadable(f"{self._name} has no sound, only {kinds}: give a file with an audio stream")
        self._stream = self._container.streams.audio[0]

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def expected_seconds(self) -> float | None:
        """What the file says of its length; only decoding tells the truth."""
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def blocks(self) -> Iterator[SoundBlock]:
        """All sound from the start, once.

        Raises:
            AudioUnreadable: not a single sample could be decoded.
        """
        heard = 0
        packer = _Packer()
        reason = "it holds no samples"
        for packet in self._packets():
            try:
                frames = cast(list[av.AudioFrame], packet.decode())
            except (av.FFmpegError, OSError, ValueError) as error:
                self.damaged_packets += 1
                reason = _reason(error)
                continue
            for frame in frames:
                block = packer.pack(frame)
                if block is not None:
                    heard += len(block.samples)
                    yield block
        if not heard:
            raise AudioUnreadable(f"no sound can be decoded from {self._name} ({reason}): export it again")

    def _packets(self) -> Iterator[av.Packet]:
        """Packets up to the end, or up to where the container breaks off."""
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, OSError, ValueError):
            self.damaged_packets += 1


class _Packer:
    """Frames of any sample format -> blocks.

    FFmpeg converts to packed floats; PyAV's ``to_ndarray`` of eight or more planes reads past their end.
    """

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[str, str, int] | None = None

    def pack(self, frame: av.AudioFrame) -> SoundBlock | None:
        if not frame.samples or not frame.sample_rate:
            return None
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            self._resampler = av.AudioResampler("flt", frame.layout, frame.sample_rate)
            self._source = source
        assert self._resampler is not None
        frame.pts = None
        packed = [f.to_ndarray().reshape(-1, f.layout.nb_channels) for f in self._resampler.resample(frame)]
        samples = np.nan_to_num(np.concatenate(packed), nan=0.0, posinf=1.0, neginf=-1.0)
        return SoundBlock(samples=samples.clip(-1.0, 1.0), rate_hz=frame.sample_rate, layout=frame.layout.name)


class MonoStream:
    """Blocks -> one continuous mono stream at an engine's rate, aligned with the start of the sound."""

    def __init__(self, rate_hz: int = 16_000) -> None:
        self._rate_hz = rate_hz
        self._resampler: av.AudioResampler | None = None
        self._source_hz = 0

    def push(self, block: SoundBlock) -> np.ndarray:
        """float32 [n]: what can be told so far; the resampler keeps a few milliseconds back."""
        rest = np.zeros(0, np.float32)
        if block.rate_hz != self._source_hz:
            rest = self.flush()
            self._resampler = av.AudioResampler("flt", "mono", self._rate_hz)
            self._source_hz = block.rate_hz
        mono = block.samples[:, :_VOICE_CHANNELS].mean(axis=1, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), format="flt", layout="mono")
        frame.sample_rate = block.rate_hz
        return np.concatenate([rest, self._resample(frame)])

    def flush(self) -> np.ndarray:
        """float32 [n]: what was kept back. The stream has ended."""
        rest = self._resample(None) if self._resampler else np.zeros(0, np.float32)
        self._resampler, self._source_hz = None, 0
        return rest

    def _resample(self, frame: av.AudioFrame | None) -> np.ndarray:
        assert self._resampler is not None
        parts = [f.to_ndarray()[0] for f in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def read_mono(path: Path, rate_hz: int = 16_000) -> np.ndarray:
    """A whole file as float32 [n] mono; for files that fit in memory.

    Raises:
        FileError, AudioUnreadable: as ``SoundFile``.
    """
    mono = MonoStream(rate_hz)
    with SoundFile(path) as sound:
        parts = [mono.push(block) for block in sound.blocks()]
    return np.concatenate([*parts, mono.flush()])


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.split(":")[0].lower()
