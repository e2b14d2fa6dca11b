"""Turn talking-face videos and still portraits into training clips.

    python -m tools.prepare_data --videos DIR --out DIR [--jobs N]
    python -m tools.prepare_data --portraits DIR --out DIR

Every clip becomes one ``NAME.npz``:

    frames      uint8 [bytes], the aligned 256x256 crops as JPEGs, one behind the other
    offsets     int64 [n + 1], where each JPEG begins
    landmarks   float32 [n, 478, 3] in crop coordinates
    sound       int16 [samples], 16 kHz mono, sample 0 at frame 0
    speech      float32 [words, 2], seconds, where a GRID ``.align`` file stands beside the video

A clip that cannot be used is listed with its reason and left out. Clips that are there already are
not made again, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from multiprocessing import Pool
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from engine.landmarks import CROP_SIZE, FaceMesh, alignment, crop_landmarks

VIDEO_ENDINGS = {".mp4", ".mpg", ".mkv", ".mov", ".avi", ".webm"}
IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
FPS = 25
SAMPLE_RATE_HZ = 16_000
JPEG_QUALITY = 95
GRID_UNITS_PER_SECOND = 25_000  # 1000 units of an .align file are one video frame


class Unusable(Exception):
    """A clip that training cannot use; the message is the reason."""


def read_frames(path: Path, max_s: float) -> list[np.ndarray]:
    """Frames at 25 fps, each the newest at its instant: list of uint8 [H, W, 3] RGB."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise Unusable("no video stream")
        start = None
        for frame in container.decode(video=0):
            start = frame.time if start is None else start
            at = (frame.time or 0.0) - (start or 0.0)
            if at > max_s:
                break
            image = frame.to_ndarray(format="rgb24")
            while len(frames) <= round(at * FPS):
                frames.append(image)
    return frames


def read_sound(path: Path, max_s: float) -> np.ndarray:
    """The sound track as int16 [samples], 16 kHz mono."""
    parts: list[np.ndarray] = []
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise Unusable("no audio stream")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        for frame in container.decode(audio=0):
            parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
        parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(None)]
    return np.concatenate(parts)[: round(max_s * SAMPLE_RATE_HZ)]


def read_words(path: Path) -> np.ndarray:
    """GRID word timing without the silences: float32 [words, 2] seconds (none: [0, 2])."""
    align = path.with_suffix(".align")
    if not align.exists():
        return np.zeros((0, 2), np.float32)
    rows = [line.split() for line in align.read_text().splitlines() if line.strip()]
    spans = [(float(a), float(b)) for a, b, word in rows if word not in ("sil", "sp")]
    return (np.array(spans, np.float32) / GRID_UNITS_PER_SECOND).reshape(-1, 2)


def find_landmarks(frames: list[np.ndarray]) -> np.ndarray:
    """Landmarks of a clip's one face in photo pixels: float32 [n, 478, 3]."""
    mesh = FaceMesh(video=True)
    try:
        rows = []
        for index, frame in enumerate(frames):
            faces = mesh.find(frame)
            if not faces:
                raise Unusable(f"no face in frame {index}")
            rows.append(faces[0])
        return np.stack(rows)
    finally:
        mesh.close()


def encode_crops(frames: list[np.ndarray], crop_from_photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shrink = float(np.hypot(*crop_from_photo[:, 0])) < 1
    how = dict(flags=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    parts = []
    for frame in frames:
        crop = cv2.warpAffine(frame, crop_from_photo, (CROP_SIZE, CROP_SIZE), **how)  # type: ignore[call-overload]
        parts.append(cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].reshape(-1))
    offsets = np.cumsum([0] + [len(p) for p in parts])
    return np.concatenate(parts), offsets


def prepare_clip(path: Path, out: Path, max_s: float) -> int:
    """Make one clip's file; returns its number of frames.

    Raises:
        Unusable: with the reason.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise Unusable("not a readable picture")
        frames, sound = [image[..., ::-1]], np.zeros(0, np.int16)
    else:
        frames, sound = read_frames(path, max_s), read_sound(path, max_s)
        count = min(len(frames), len(sound) * FPS // SAMPLE_RATE_HZ)
        if count < FPS:
            raise Unusable(f"only {count / FPS:.2f} s of sound and picture together")
        frames = frames[:count]
    found = find_landmarks(frames)
    crop_from_photo = alignment(found.mean(0))
    data, offsets = encode_crops(frames, crop_from_photo)
    target = out / f"{path.stem}.npz"
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            frames=data,
            offsets=offsets,
            landmarks=crop_landmarks(found, crop_from_photo),
            sound=sound,
            speech=read_words(path),
        )
    os.replace(part, target)
    return len(frames)


def _job(job: tuple[Path, Path, float]) -> tuple[str, str | None]:
    cv2.setNumThreads(1)
    path, out, max_s = job
    try:
        prepare_clip(path, out, max_s)
    except (Unusable, av.error.FFmpegError, OSError) as error:
        return path.name, str(error)
    return path.name, None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", type=Path, help="folder of talking-face videos, searched in depth")
    source.add_argument("--portraits", type=Path, help="folder of still portraits")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--max-s", type=float, default=60.0, help="seconds of each clip to use at most")
    args = parser.parse_args(argv)
    folder, endings = (args.videos, VIDEO_ENDINGS) if args.videos else (args.portraits, IMAGE_ENDINGS)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings)
    if not paths:
        print(f"{folder}: no file ends in {', '.join(sorted(endings))}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(p, args.out, args.max_s) for p in paths if not (args.out / f"{p.stem}.npz").exists()]
    left_out = []
    with Pool(args.jobs) as pool:
        for name, reason in tqdm(pool.imap_unordered(_job, jobs), total=len(jobs), unit="clip"):
            if reason:
                left_out.append(f"{name}: {reason}")
    print(f"{len(paths) - len(left_out)} clips in {args.out}, {len(left_out)} left out")
    print("\n".join(left_out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
