"""Prepared clips in memory, and which of them training may see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np

from engine.landmarks import FACE_OVAL, LIPS_INNER, LIPS_OUTER, brow_height, eye_openness, relative_pose
from engine.s3dnerf.lip_motion import LipMotion

SAMPLES_PER_FRAME = 640
CROP_SIZE = 256
HELD_OUT_LIST = Path(__file__).parent.parent / "grid_heldout.txt"
BASIS_FILE, CODES_FILE = "lip_motion.npz", "codes.npz"  # beside the clips; neither is one


class Head(NamedTuple):
    """What a clip's head does apart from its lips."""

    poses: np.ndarray  # float32 [n, 3, 4], R and t that lay each frame on the clip's mean face
    eyes: np.ndarray  # float32 [n], lid distance / eye width: 0.3 open, 0.05 shut
    brows: np.ndarray  # float32 [n], height over the eye corners in eye distances


def measure_head(landmarks: np.ndarray) -> Head:
    """Poses, lids and brows of a clip's landmarks [n, 478, 3], lids and brows with the head held still."""
    mean = landmarks.mean(0)
    poses = np.empty((len(landmarks), 3, 4), np.float32)
    still = np.empty_like(landmarks)
    for index, frame in enumerate(landmarks):
        poses[index, :, :3], poses[index, :, 3] = relative_pose(frame, mean)
        still[index] = frame @ poses[index, :, :3].T + poses[index, :, 3]
    return Head(poses, eye_openness(still).astype(np.float32), brow_height(still).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One file of ``tools/prepare_data.py``; pictures stay encoded until asked for."""

    name: str
    data: np.ndarray  # uint8, JPEGs one behind the other
    offsets: np.ndarray  # [n + 1]
    landmarks: np.ndarray  # float32 [n, 478, 3]
    sound: np.ndarray  # float32 [samples] in [-1, 1], 16 kHz
    speech: np.ndarray | None = None  # float32 [words, 2] s, where the words are timed
    codes: np.ndarray | None = None  # float32 [n, 8] lip-motion codes, where the set has a basis
    speaker: str | None = None  # None in files of the first version

    def __len__(self) -> int:
        return len(self.landmarks)

    def frame(self, index: int) -> np.ndarray:
        """uint8 [256, 256, 3] RGB."""
        jpeg = self.data[self.offsets[index] : self.offsets[index + 1]]
        return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]

    @cached_property
    def head(self) -> Head:
        """Poses, blink and brow values; measured from the landmarks, exactly as the file has them."""
        return measure_head(self.landmarks)

    def face_mask(self, index: int, size: int = CROP_SIZE) -> np.ndarray:
        """The inner face: uint8 [size, size], 1 inside the face's contour, 0 outside.

        Masks are no part of the files: landmarks are their outlines, and filling one takes 0.1 ms.
        """
        return _fill([self.landmarks[index, FACE_OVAL]], size)

    def lip_mask(self, index: int, size: int = CROP_SIZE) -> np.ndarray:
        """The lips without the mouth's inside: uint8 [size, size], 1 on them, 0 elsewhere."""
        return _fill([self.landmarks[index, LIPS_OUTER]], size) * (1 - self.mouth_mask(index, size))

    def mouth_mask(self, index: int, size: int = CROP_SIZE) -> np.ndarray:
        """What shows between the lips: uint8 [size, size], 1 inside, 0 elsewhere; a line on a closed mouth."""
        return _fill([self.landmarks[index, LIPS_INNER]], size)


def _fill(outlines: list[np.ndarray], size: int) -> np.ndarray:
    """Polygons [m, 2 or 3] in crop coordinates -> uint8 [size, size]; edges to a 16th of a pixel."""
    mask = np.zeros((size, size), np.uint8)
    # The middle of cv2's pixel 0 is 0, ours 0.5.
    points = [(((outline[:, :2] + 1) / 2 * size - 0.5) * 16).round().astype(np.int32) for outline in outlines]
    cv2.fillPoly(mask, points, [1], shift=4)
    return mask


def read_basis(path: Path) -> LipMotion:
    """The basis of lip-motion codes that a file holds.

    Raises:
        ValueError: it holds something else.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, AttributeError, BadZipFile) as error:
        raise ValueError(f"{path.name} is no basis of lip-motion codes: it cannot be read ({error})") from None
    if set(arrays) != set(LipMotion.__dataclass_fields__):
        raise ValueError(f"{path.name} is no basis of lip-motion codes: it holds {', '.join(arrays)}")
    return LipMotion(**arrays)


def read_codes(folder: Path) -> dict[str, np.ndarray]:
    """Lip-motion codes of a folder's clips by name; empty where none were made."""
    if not (folder / CODES_FILE).exists():
        return {}
    with np.load(folder / CODES_FILE) as file:
        rows = np.split(file["codes"], file["offsets"][1:-1])
        return dict(zip(file["names"].tolist(), rows, strict=True))


def read_held_out() -> set[str]:
    """Names of the GRID clips that are never trained on."""
    return set(HELD_OUT_LIST.read_text().split())


def load_clips(folder: Path, *, leave_out: set[str] = frozenset(), only: set[str] | None = None) -> list[Clip]:  # type: ignore[assignment]
    """Clips of a folder in name order.

    Raises:
        FileNotFoundError: when there is none.
    """
    clips, codes = [], read_codes(folder)
    for path in sorted(folder.glob("*.npz")):
        if (
            path.name in (BASIS_FILE, CODES_FILE)
            or path.stem in leave_out
            or (only is not None and path.stem not in only)
        ):
            continue
        with np.load(path) as file:
            sound = file["sound"].astype(np.float32) / 32768
            parts = {name: file[name] for name in ("offsets", "landmarks", "speech") if name in file}
            speaker = str(file["speaker"]) if "speaker" in file else None
            known = codes.get(path.stem)
            parts["codes"] = known if known is not None and len(known) == len(parts["landmarks"]) else None
            clips.append(Clip(name=path.stem, data=file["frames"], sound=sound, speaker=speaker, **parts))
    if not clips:
        raise FileNotFoundError(f"{folder} holds no prepared clips; make them with python -m tools.prepare_data")
    return clips
