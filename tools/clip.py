"""Talking-face clips: finding them, and reading their pictures and sound on one clock."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image

from engine.errors import VisavisError

FPS = 25
SAMPLE_RATE_HZ = 16_000
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .flv .ts .mts .m2ts .wmv .ogv .3gp .3g2 .vob .asf .mxf".split()
)


class ClipUnreadable(VisavisError):
    """A file that is not a talking-face video with sound, or none of them in a folder."""

    code = "clip_unreadable"


def find_clips(folder: Path, names: list[str] | None = None, limit: int | None = None) -> list[Path]:
    """Videos of a folder, sorted by name.

    Args:
        folder: searched by file name ending, not recursively.
        names: keep only these; with or without ending.
        limit: keep this many, spread evenly over the folder rather than its first ones.

    Raises:
        ClipUnreadable: no such folder, no video in it, or none of ``names``.
    """
    if not folder.is_dir():
        raise ClipUnreadable(f"{folder} is not a folder; give a folder of talking-face videos")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not paths:
        raise ClipUnreadable(f"no videos in {folder}; give a folder with .mp4, .mov, .mkv, .webm or .mpg files")
    if names is not None:
        wanted = set(names)
        paths = [p for p in paths if p.name in wanted or p.stem in wanted]
        if not paths:
            raise ClipUnreadable(f"none of the {len(wanted)} listed clips is in {folder}; check the list's names")
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    return paths


def read_frames(path: Path, *, max_s: float = 60.0) -> Iterator[np.ndarray]:
    """Pictures of a video at 25 fps, picked by their time stamps; picture k stands k / 25 s after the first.

    A slower video repeats pictures, a faster one skips some; what lies after ``max_s`` is left out. The
    turn that phones write beside the picture is applied.

    Yields:
        uint8 [H, W, 3] RGB.

    Raises:
        ClipUnreadable: damaged, or without pictures.
    """
    start_s: float | None = None
    count = 0
    with _opened(path) as container:
        if not container.streams.video:
            raise ClipUnreadable(f"{path.name} has no pictures; a clip needs a face and its voice")
        fallback_fps = float(container.streams.video[0].average_rate or FPS)
        for index, frame in enumerate(container.decode(video=0)):
            at_s = index / fallback_fps if frame.time is None else float(frame.time)
            start_s = at_s if start_s is None else start_s
            slot = round((at_s - start_s) * FPS)  # the 25 fps instant nearest to this picture
            if slot >= max_s * FPS:
                break
            if count <= slot:
                picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                while count <= slot:
                    count += 1
                    yield np.ascontiguousarray(picture)
    if start_s is None:
        raise ClipUnreadable(f"{path.name} has no picture that can be decoded; replace the file")


def read_samples(path: Path, count: int) -> np.ndarray:
    """Sound of a video, 16 kHz mono, sample 0 standing at its first picture.

    A stream that starts late or early is aligned by its time stamps; the rest up to ``count`` is silence.

    Returns:
        float32 [count] in [-1, 1].

    Raises:
        ClipUnreadable: damaged, or without sound.
    """
    sound = np.zeros(count, np.float32)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    at: int | None = None
    with _opened(path) as container:
        if not container.streams.audio:
            raise ClipUnreadable(f"{path.name} has no sound; a clip needs a face and its voice")
        start_s = _start_s(container)
        for frame in [*container.decode(audio=0), None]:
            if at is None:
                if frame is None:
                    break
                at = round(((start_s if frame.time is None else float(frame.time)) - start_s) * SAMPLE_RATE_HZ)
            for part in resampler.resample(frame):
                block = part.to_ndarray().reshape(-1)
                low, high = max(at, 0), min(at + len(block), count)
                if high > low:
                    sound[low:high] = block[low - at : high - at]
                at += len(block)
    if at is None:
        raise ClipUnreadable(f"{path.name} has no sound that can be decoded; replace the file")
    return np.clip(sound, -1, 1)


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] RGB -> PNG bytes, what ``Engine.enrol`` takes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _start_s(container: av.container.InputContainer) -> float:
    """Time stamp of the first picture, 0 where there is none."""
    video = container.streams.video
    if not video or video[0].start_time is None or video[0].time_base is None:
        return 0.0
    return float(video[0].start_time * video[0].time_base)


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        raise ClipUnreadable(f"{path.name} cannot be decoded ({error}); replace the file") from error
