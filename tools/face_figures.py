"""Figures of the face above the mouth, which speech must leave alone; no input or output here.

Landmarks are float [N, 478, 3] in crop coordinates ([-1, 1] over the crop's sides); a frame without a
face is all NaN. Frames are uint8 [N, S, S, 3] RGB. What cannot be had is ``None``.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.landmarks import BROWS, CROP_SIZE, EYE_LIDS, FACE_OVAL, RIGID

NOSE_TIP = 4
RIM_PX = 4  # of a 256 px crop: so far inside the face's outline, where hair and background begin to mix in
STILL_STEP_PX = 0.4  # mean step of the rigid points; the tracker's own tremble on a held head is 0.1 to 0.2
STILL_LID_PX = 1.0  # farthest step of a lid or brow; a blink's is 3 and more
LIDS_AND_BROWS = np.concatenate([[lid for eye in EYE_LIDS for lid in eye[:2]], BROWS])
LEAST_STILL_STEPS = 5  # a mean over fewer says nothing
EQUAL_DB = 60.0  # what equal pictures get, and the most that any get: an error of 1 level in a pixel of 15


def upper_face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Pixels of the *upper face*: inside the face's outline, above the tip of the nose.

    Eyes and brows belong to it: with the pose locked nothing there may move.

    Args:
        landmarks: [478, 3] of one frame.
        size: the picture's side in pixels.

    Returns:
        bool [size, size].
    """
    points = (landmarks[:, :2] + 1) * size / 2
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [points[FACE_OVAL].round().astype(np.int32)], (1,))
    rim = 2 * max(1, round(RIM_PX * size / CROP_SIZE)) + 1
    inner = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim))).astype(bool)
    inner[max(0, int(points[NOSE_TIP, 1])) :] = False
    return inner


def upper_psnr_db(frames: np.ndarray, source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """PSNR of each frame against ``source`` [S, S, 3] within ``mask``, [N] dB, at most ``EQUAL_DB``.

    An empty mask (no face) gives NaN.
    """
    if not mask.any():
        return np.full(len(frames), np.nan)
    wanted = source[mask].astype(np.float32)
    errors = np.array([np.mean((frame[mask] - wanted) ** 2) for frame in frames])
    return np.minimum(10 * np.log10(255**2 / np.maximum(errors, 1e-9)), EQUAL_DB)


def still_steps(landmarks: np.ndarray) -> np.ndarray:
    """bool [N - 1]: the steps from frame to frame in which a real face's upper part holds still.

    Both its rigid points, in the mean, and its lids and brows, each, move less than the limits above.
    A step from or to a frame without a face is not still.
    """
    if len(landmarks) < 2:
        return np.zeros(0, bool)
    steps = np.linalg.norm(np.diff(landmarks[..., :2], axis=0), axis=-1) * CROP_SIZE / 2
    return (steps[:, RIGID].mean(1) < STILL_STEP_PX) & (steps[:, LIDS_AND_BROWS].max(1) < STILL_LID_PX)


def flicker_levels(frames: np.ndarray, mask: np.ndarray, still: np.ndarray) -> float | None:
    """Flicker: mean change of a pixel of ``mask`` from frame to frame over the ``still`` steps, in grey levels.

    Args:
        still: bool [N - 1], see ``still_steps``; of the real frames, whichever are measured.
    """
    if still.sum() < LEAST_STILL_STEPS or not mask.any():
        return None
    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[mask] for frame in frames]).astype(np.float32)
    return float(np.abs(np.diff(grey, axis=0))[still].mean())


def detail_levels(frames: np.ndarray, landmarks: np.ndarray) -> float | None:
    """Fine detail of the mouth: standard deviation of what a blur of 1.5 px takes away, in grey levels.

    Measured in a box around each frame's lips, which grows and shrinks with the face; mean over the frames
    with a face.
    """
    values = []
    size = frames.shape[1]
    for frame, points in zip(frames, landmarks, strict=True):
        if np.isfinite(points).all():
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
            box = mouth_box(points, size)
            values.append(float((grey - cv2.GaussianBlur(grey, (0, 0), 1.5))[box].std()))
    return float(np.mean(values)) if values else None


def mouth_box(landmarks: np.ndarray, size: int) -> tuple[slice, slice]:
    """Rows and columns of a square around the lips, 1.6 times the distance of the mouth's corners wide."""
    points = (landmarks[:, :2] + 1) * size / 2
    right, left, upper, lower = (points[i] for i in (61, 291, 0, 17))
    half = max(4, round(0.8 * float(np.linalg.norm(left - right))))
    x, y = ((right + left) / 2)[0], ((upper + lower) / 2)[1]
    row, column = (int(np.clip(round(float(c)), half, size - half)) for c in (y, x))
    return slice(row - half, row + half), slice(column - half, column + half)
