"""Pictures at 25 a second and 16 kHz sound out of any video file, both on one clock.

The clock is the files' own time stamps: tick k shows the frame whose stamp is nearest to k / 25 s after
the first one, so that 60 fps, 23.976 fps and changing rates keep their time; sample 0 of the sound
belongs to tick 0 even where one stream starts later than the other.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tools.prepare import Unusable

FPS = 25
SAMPLE_RATE_HZ = 16_000
MAX_HOLE_S = 0.3  # a picture that stands longer has lost frames; lips would freeze while speech goes on
MAX_SOUND_DRIFT_S = 0.08  # between time stamps and samples; more means that sound is missing


@dataclass(frozen=True)
class Span:
    """The part of a file that a clip is made of, in seconds from its beginning."""

    start_s: float = 0.0
    end_s: float = math.inf


WHOLE = Span()


class VideoReader:
    """The frames of a span at 25 fps, upright and with square pixels; decoded as they are asked for.

    ``start_s`` is, once the first frame came, its time on the container's clock.

    Args:
        path: any file with a video stream.
        span: what part of it.

    Raises:
        Unusable: while iterating; no video stream, nothing can be decoded, or frames are missing.
    """

    def __init__(self, path: Path, span: Span = WHOLE) -> None:
        self._path, self._span = path, span
        self.start_s = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames()

    def frames(self) -> Generator[np.ndarray, None, None]:
        """uint8 [H, W, 3] RGB each; a frame shown for several ticks is the same array again."""
        length_s = self._span.end_s - self._span.start_s
        limit = math.inf if math.isinf(length_s) else round(length_s * FPS)
        tick, image, held_s, duration_s = 0, None, 0.0, 0.0
        for stamped in self._stamped():
            if image is None:
                self.start_s = stamped.at_s if self._span.start_s == 0 else max(stamped.span_s, stamped.at_s)
            elif stamped.at_s <= held_s:
                continue  # a stamp that steps back
            else:
                duration_s = stamped.at_s - held_s
                if duration_s > MAX_HOLE_S:
                    since_s = held_s - self.start_s
                    raise Unusable(f"frames are missing: the picture stands for {duration_s:.1f} s at {since_s:.1f} s")
            while image is not None and tick < limit and self.start_s + tick / FPS < (held_s + stamped.at_s) / 2:
                yield image()
                tick += 1
            if tick >= limit:
                return
            image, held_s = cache(partial(_upright, stamped.frame, stamped.pixel_aspect)), stamped.at_s
        if image is None:
            raise Unusable("no frame of it can be decoded")
        while tick < limit and self.start_s + tick / FPS <= held_s + duration_s / 2:
            yield image()
            tick += 1

    def _stamped(self) -> Iterator[_Stamped]:
        with _open(self._path) as container:
            if not container.streams.video:
                raise Unusable("it has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # clips are made side by side already
            span_s = _seek(container, self._span)
            rate, aspect = float(stream.average_rate or FPS), float(stream.sample_aspect_ratio or 1)
            for count, frame in enumerate(_decode(container, stream)):
                at_s = count / rate if frame.time is None else float(frame.time)
                if not frame.is_corrupt and (self._span.start_s == 0 or at_s >= span_s - 0.5 / rate):
                    yield _Stamped(frame, at_s, span_s, aspect)


@dataclass(frozen=True)
class _Stamped:
    frame: av.VideoFrame
    at_s: float  # on the container's clock, like the next
    span_s: float
    pixel_aspect: float


def seconds_of(path: Path) -> float | None:
    """Length of a file as its header tells it; None where it does not or where there is none to read."""
    try:
        with _open(path) as container:
            return container.duration / 1e6 if container.duration else None
    except Unusable:
        return None


def first_frame_s(path: Path, span: Span = WHOLE) -> float:
    """When a span's first frame is shown, on the container's clock.

    Raises:
        Unusable: as ``VideoReader``.
    """
    reader = VideoReader(path, span)
    frames = reader.frames()
    next(frames)
    frames.close()
    return reader.start_s


def read_sound(path: Path, max_s: float) -> np.ndarray:
    """The beginning of a file's first sound track: int16 [samples], 16 kHz mono.

    Raises:
        Unusable: no sound, or it cannot be decoded.
    """
    return read_sound_span(path, Span(0.0, max_s))


def read_sound_span(path: Path, span: Span = WHOLE, begin_s: float | None = None) -> np.ndarray:
    """The sound of a span: int16 [samples], 16 kHz mono.

    Args:
        begin_s: time on the container's clock that sample 0 belongs to; None for a sound file of
            its own, which begins with the picture.

    Raises:
        Unusable: no sound, it cannot be decoded, or part of it is missing.
    """
    parts: list[np.ndarray] = []
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    sound_s = end_s = 0.0
    stamped = False
    with _open(path) as container:
        if not container.streams.audio:
            raise Unusable("it has no sound track")
        start_s = _seek(container, span)
        wanted_s = start_s if begin_s is None else begin_s
        last_s = wanted_s + span.end_s - span.start_s
        for frame in _decode(container, container.streams.audio[0]):
            if frame.time is not None:
                if frame.time > last_s:
                    break
                if not parts:
                    sound_s, stamped = float(frame.time), True
                end_s = float(frame.time) + frame.samples / frame.sample_rate
            parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
        parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(None)]
    sound = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    if not len(sound):
        raise Unusable("no sound of it can be decoded")
    if stamped:
        drift_s = end_s - sound_s - len(sound) / SAMPLE_RATE_HZ
        if abs(drift_s) > MAX_SOUND_DRIFT_S:
            raise Unusable(f"its sound has holes: time stamps and samples differ by {drift_s:+.2f} s")
        whole_file = begin_s is None and span.start_s == 0
        late = 0 if whole_file else round((sound_s - wanted_s) * SAMPLE_RATE_HZ)
        sound = np.concatenate([np.zeros(late, np.int16), sound]) if late > 0 else sound[-late:]
    keep = span.end_s - span.start_s
    return sound if math.isinf(keep) else sound[: round(keep * SAMPLE_RATE_HZ)]


def _open(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise Unusable("the file is empty (0 bytes)")
    try:
        return av.open(f"file:{path}", metadata_errors="replace")  # with "file:" a name stays a name
    except (av.error.FFmpegError, ValueError) as error:
        raise Unusable(f"it cannot be read as a video or sound file ({_reason(error)})") from None


def _seek(container: Any, span: Span) -> float:
    """Go to a keyframe before the span; returns the span's start on the container's clock in seconds."""
    first_s = (container.start_time or 0) / 1e6 + span.start_s
    if span.start_s > 0:
        container.seek(int(max(0.0, first_s - 0.5) * 1e6))
    return first_s


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of a stream; damaged packets are left out, as players do, and a torn-off end ends it."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _upright(frame: av.VideoFrame, pixel_aspect: float) -> np.ndarray:
    """RGB with the shape of the pixels and the camera's turn taken into account: uint8 [H, W, 3]."""
    image: np.ndarray = frame.to_ndarray(format="rgb24")
    if abs(pixel_aspect - 1) > 0.01:
        size = (round(image.shape[1] * pixel_aspect), image.shape[0])
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
