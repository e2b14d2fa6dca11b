"""One clip: made from its source, written whole or not at all, and known again on the next run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import PortraitError
from engine.faces import thread_finder
from engine.landmarks import CROP_SIZE, alignment, crop_landmarks
from tools.prepare import Unusable
from tools.prepare.media import FPS, Span, VideoReader, first_frame_s, read_sound_span
from tools.prepare.sources import IMAGE_ENDINGS, Source
from tools.prepare.sync_check import judge_clip, measure_sync
from tools.prepare.tracking import follow_face
from tools.training.clips import SAMPLES_PER_FRAME, measure_head

VERSION = 2  # of what the files hold; older ones are made anew
JPEG_QUALITY = 95
GRID_UNITS_PER_SECOND = 25_000  # 1000 units of an .align file are one video frame
MIN_CROP_PX = 96  # side of the crop in the source's pixels; a smaller face has no lips to learn from


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What changes the files that are made."""

    max_s: float = 60.0
    sync_check: bool = True


def stamp_of(source: Source, settings: Settings) -> str:
    """What a clip's file depends on; where it is the same the clip need not be made again."""
    files = [p.stat().st_size for p in (source.path, source.sound) if p is not None]
    parts = {"version": VERSION, "file": source.file, "bytes": files, "span": asdict(source.span)}
    return json.dumps(parts | {"window": source.window} | asdict(settings), sort_keys=True)


def read_stamp(path: Path) -> str | None:
    """The stamp of a clip's file; "" where an older version or something else made it, None where there is none."""
    try:
        with np.load(path) as file:
            return str(file["made"]) if "made" in file else ""
    except FileNotFoundError:
        return None
    except Exception:  # half a zip file, a text: whatever it is, it is no clip of ours
        return ""


def make_clip(source: Source, out: Path, settings: Settings) -> int:
    """Make one clip's file; returns its number of frames.

    Raises:
        Unusable: with the reason.
    """
    if source.path.suffix.lower() in IMAGE_ENDINGS:
        arrays = _from_picture(source.path)
    else:
        arrays = _from_video(source, settings)
    arrays.update(measure_head(arrays["landmarks"])._asdict())
    arrays |= {"speaker": np.array(source.speaker), "made": np.array(stamp_of(source, settings))}
    target = out / f"{source.name}.npz"
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, target)
    return len(arrays["landmarks"])


def _from_picture(path: Path) -> dict[str, np.ndarray]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright by EXIF, 8 bits, three channels
    if image is None:
        raise Unusable("it cannot be read as a picture")
    image = np.ascontiguousarray(image[..., ::-1])
    try:
        face = thread_finder().find_one(image)
    except PortraitError as error:
        raise Unusable(error.args[0].split(":")[0]) from None
    crop_from_photo = _align(face)
    crops = _Crops(crop_from_photo)
    crops.add(image)
    nothing: dict[str, np.ndarray] = {"sound": np.zeros(0, np.int16), "speech": np.zeros((0, 2), np.float32)}
    return crops.arrays() | {"landmarks": crop_landmarks(face[None], crop_from_photo)} | nothing


def _from_video(source: Source, settings: Settings) -> dict[str, np.ndarray]:
    span = Span(source.span.start_s, min(source.span.end_s, source.span.start_s + settings.max_s))
    sound = _read_own_or_beside(source, span, first_frame_s(source.path, span))
    track = follow_face(VideoReader(source.path, span), source.window)
    sound = sound[track.first * SAMPLES_PER_FRAME :]
    count = min(len(track.landmarks), len(sound) // SAMPLES_PER_FRAME)
    if count < FPS:
        raise Unusable(f"only {count / FPS:.2f} s of sound and picture together")
    found, sound = track.landmarks[:count], sound[: count * SAMPLES_PER_FRAME]
    heard = sound.astype(np.float32) / 32768
    curve = measure_sync(found, heard)
    if settings.sync_check and (reason := judge_clip(found, heard, curve)):
        raise Unusable(reason)
    crop_from_photo = _align(found.mean(0))
    crops = _Crops(crop_from_photo)
    for index, image in enumerate(VideoReader(source.path, span)):  # again, for a clip's frames fill a memory
        if track.first <= index < track.first + count:
            crops.add(image)
    return crops.arrays() | {
        "landmarks": crop_landmarks(found, crop_from_photo),
        "sound": sound,
        "speech": read_words(source.path, span.start_s + track.first / FPS, count / FPS),
        "sync": curve.correlations,
    }


def _read_own_or_beside(source: Source, span: Span, begin_s: float) -> np.ndarray:
    """The video's own sound, else that of the file that goes with it."""
    try:
        return read_sound_span(source.path, span, begin_s)
    except Unusable:
        if source.sound is None:
            raise
        return read_sound_span(source.sound, span)


def _align(face: np.ndarray) -> np.ndarray:
    crop_from_photo = alignment(face)
    side = CROP_SIZE / float(np.hypot(*crop_from_photo[:, 0]))
    if side < MIN_CROP_PX:
        raise Unusable(f"the face is too small: its crop would be {side:.0f} pixels wide, {MIN_CROP_PX} are needed")
    return crop_from_photo


class _Crops:
    """Aligned crops as JPEGs, one behind the other."""

    def __init__(self, crop_from_photo: np.ndarray) -> None:
        self._matrix = crop_from_photo
        shrink = float(np.hypot(*crop_from_photo[:, 0])) < 1
        self._flags = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
        self._parts: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> None:
        size = (CROP_SIZE, CROP_SIZE)
        crop = cv2.warpAffine(image, self._matrix, size, flags=self._flags, borderMode=cv2.BORDER_REPLICATE)
        jpeg = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        self._parts.append(jpeg.reshape(-1))

    def arrays(self) -> dict[str, np.ndarray]:
        offsets = np.cumsum([0] + [len(part) for part in self._parts])
        return {"frames": np.concatenate(self._parts), "offsets": offsets}


def read_words(path: Path, begin_s: float, length_s: float) -> np.ndarray:
    """Timing of the words in a clip that begins at ``begin_s``, by GRID's list beside the video.

    Returns:
        float32 [words, 2] seconds, without the silences; [0, 2] where there is no list.
    """
    align = path.with_suffix(".align")
    if not align.exists():
        return np.zeros((0, 2), np.float32)
    rows = [line.split() for line in align.read_text().splitlines() if line.strip()]
    spans = [(float(a), float(b)) for a, b, word in rows if word not in ("sil", "sp")]
    times = np.array(spans).reshape(-1, 2) / GRID_UNITS_PER_SECOND - begin_s
    return times[(times[:, 1] > 0) & (times[:, 0] < length_s)].astype(np.float32)
