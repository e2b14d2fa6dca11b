"""Mirrored faces: left and right exchanged in pictures, landmarks and lip-motion codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.landmarks import LIPS
from engine.s3dnerf.lip_motion import LipMotion

# Which of the 478 points each one becomes, found as the closest pairing of the mean faces of 800 portraits and
# 3,000 frames of speech, by how far their mouths were open, with the same faces mirrored. The mesh's own
# edges are kept but for six diagonals that the mesh itself lays differently on its two sides.
MIRRORED_POINTS = np.array((Path(__file__).parent / "mirrored_points.txt").read_text().split(), np.int64)


def mirror_picture(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> the same, left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def mirror_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Crop coordinates [..., 478, 3] -> those of the mirrored picture, each point in its own place of the list."""
    return landmarks[..., MIRRORED_POINTS, :] * np.array([-1, 1, 1], landmarks.dtype)


def code_mirror(motion: LipMotion) -> np.ndarray:
    """What mirrors lip-motion codes: float32 [K, K], ``codes @ code_mirror(motion)``."""
    place = {point: index for index, point in enumerate(LIPS.tolist())}
    swapped = np.array([place[int(point)] for point in MIRRORED_POINTS[LIPS]])
    moved = motion.offsets(np.eye(len(motion.scale), dtype=np.float32))[:, swapped] * np.array([-1, 1])
    return (moved.reshape(len(moved), -1) @ motion.basis.T / motion.scale).astype(np.float32)
