"""What needs all clips of a folder: speakers judged for sync together, the basis of the lip-motion codes.

``lip_motion.npz`` holds the basis, ``codes.npz`` every clip's codes by that basis; ``load_clips`` hands them out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.s3dnerf.lip_motion import LipMotion, fit_lip_motion
from tools.prepare.sync_check import SyncCurve, judge_speaker
from tools.training.clips import BASIS_FILE, CODES_FILE, read_basis, read_held_out

CODES = 8
FIT_CLIPS = 1000  # at most, evenly taken; more do not move the basis and fill the memory


def find_late_speakers(folder: Path, names: list[str]) -> dict[str, str]:
    """Clips of speakers whose sound is out of sync throughout: name -> reason."""
    curves: dict[str, list[tuple[str, SyncCurve]]] = defaultdict(list)
    for name in names:
        with np.load(folder / f"{name}.npz") as file:
            if "sync" in file:
                curves[str(file["speaker"])].append((name, SyncCurve(file["sync"], len(file["offsets"]) - 1)))
    left_out: dict[str, str] = {}
    for rows in curves.values():
        if reason := judge_speaker([curve for _, curve in rows]):
            left_out |= {name: reason for name, _ in rows}
    return left_out


def write_codes(folder: Path, names: list[str], basis: Path | None) -> int:
    """Write the basis and every clip's codes; returns the number of clips that have codes.

    Args:
        names: clips, in order.
        basis: a ``lip_motion.npz`` to use; None fits one over the clips, which stills alone do not allow.
    """
    motion = read_basis(basis) if basis is not None else _fit(folder, names)
    if motion is None:
        return 0
    rows = [_codes(folder / f"{name}.npz", motion) for name in names]
    _write(folder / BASIS_FILE, **vars(motion))
    _write(
        folder / CODES_FILE,
        names=np.array(names),
        offsets=np.cumsum([0] + [len(row) for row in rows]),
        codes=np.concatenate(rows),
    )
    return len(rows)


def _fit(folder: Path, names: list[str]) -> LipMotion | None:
    """The basis over clips that move; what figures are measured on stays out of it."""
    held_out = read_held_out()
    moving = [name for name in names if name not in held_out and _frames(folder / f"{name}.npz") > 1]
    if not moving:
        return None
    chosen = np.linspace(0, len(moving) - 1, min(FIT_CLIPS, len(moving))).round().astype(int)
    return fit_lip_motion([_landmarks(folder / f"{moving[i]}.npz") for i in chosen], codes=CODES)


def _codes(path: Path, motion: LipMotion) -> np.ndarray:
    """A clip's codes [n, 8]; a still's are guessed from the gap of its lips."""
    landmarks = _landmarks(path)
    return motion.codes(landmarks) if len(landmarks) > 1 else motion.guess_code(landmarks)


def _landmarks(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["landmarks"]


def _frames(path: Path) -> int:
    with np.load(path) as file:
        return len(file["offsets"]) - 1


def _write(path: Path, **arrays: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, path)
