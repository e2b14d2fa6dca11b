"""Prepared clips in memory, and which of them training may see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SAMPLES_PER_FRAME = 640
HELD_OUT_LIST = Path(__file__).parent.parent / "grid_heldout.txt"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One file of ``tools/prepare_data.py``; pictures stay encoded until asked for."""

    name: str
    data: np.ndarray  # uint8, JPEGs one behind the other
    offsets: np.ndarray  # [n + 1]
    landmarks: np.ndarray  # float32 [n, 478, 3]
    sound: np.ndarray  # float32 [samples] in [-1, 1], 16 kHz
    speech: np.ndarray | None = None  # float32 [words, 2] s, where the words are timed

    def __len__(self) -> int:
        return len(self.landmarks)

    def frame(self, index: int) -> np.ndarray:
        """uint8 [256, 256, 3] RGB."""
        jpeg = self.data[self.offsets[index] : self.offsets[index + 1]]
        return cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]


def read_held_out() -> set[str]:
    """Names of the GRID clips that are never trained on."""
    return set(HELD_OUT_LIST.read_text().split())


def load_clips(folder: Path, *, leave_out: set[str] = frozenset(), only: set[str] | None = None) -> list[Clip]:  # type: ignore[assignment]
    """Clips of a folder in name order.

    Raises:
        FileNotFoundError: when there is none.
    """
    clips = []
    for path in sorted(folder.glob("*.npz")):
        if path.stem in leave_out or (only is not None and path.stem not in only):
            continue
        with np.load(path) as file:
            sound = file["sound"].astype(np.float32) / 32768
            parts = {name: file[name] for name in ("offsets", "landmarks", "speech") if name in file}
            clips.append(Clip(name=path.stem, data=file["frames"], sound=sound, **parts))
    if not clips:
        raise FileNotFoundError(f"{folder} holds no prepared clips; make them with python -m tools.prepare_data")
    return clips
