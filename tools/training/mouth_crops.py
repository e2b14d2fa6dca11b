"""Pictures of mouth boxes as stage 3 paints them, from clips and stills, changed as training learns to live with."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from engine.landmarks import CROP_SIZE, LIPS
from tools.training.clips import Clip
from tools.training.mirror import mirror_landmarks, mirror_picture
from tools.training.pictures import change_light, change_tone, soften


class MouthCrop(NamedTuple):
    picture: np.ndarray  # float32 [3, size, size] in [-1, 1]
    points: np.ndarray  # float32 [40, 2], lip points in [-1, 1] over the box


def mouth_corner(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Top left corner, px, of the box that stage 3 paints (``S3DNerf.mouth_box_centre``): [478, 3] -> [2]."""
    half = size // 2
    middle = (landmarks[LIPS, :2].mean(0) + 1) / 2 * CROP_SIZE
    return np.clip(np.round(middle), half, CROP_SIZE - half) - half


def cut_mouth(picture: np.ndarray, landmarks: np.ndarray, size: int, change: np.ndarray | None = None) -> MouthCrop:
    """Cut the mouth box.

    Args:
        picture: uint8 [256, 256, 3].
        landmarks: [478, 3], crop units.
        size: of the box, px.
        change: [2, 3], moves points of the box, px about its middle; None: as it is.
    """
    corner = mouth_corner(landmarks, size)
    half = size / 2
    affine = np.eye(2, 3) if change is None else change.astype(np.float64)
    matrix, shift = affine[:, :2], affine[:, 2]
    # Edges at whole numbers here; OpenCV counts from the middle of the first pixel.
    into_box = np.concatenate([matrix, (shift + half - matrix @ (corner + half))[:, None]], 1)
    centred = into_box.copy()
    centred[:, 2] += matrix @ np.array([0.5, 0.5]) - 0.5
    cut = cv2.warpAffine(picture, centred, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pixels = (landmarks[LIPS, :2] + 1) / 2 * CROP_SIZE
    points = (pixels @ matrix.T + into_box[:, 2]) / half - 1
    return MouthCrop(cut.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1, points.astype(np.float32))


def change_place(rng: np.random.Generator) -> np.ndarray:
    """Another size, proportion, tilt and place of a mouth in its box: [2, 3] as ``cut_mouth`` takes it."""
    tilt, scale, tall = rng.uniform(-0.15, 0.15), np.exp(rng.uniform(-0.15, 0.15)), np.exp(rng.uniform(-0.08, 0.08))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return np.concatenate([turn * scale @ np.diag([1 / tall, tall]), rng.uniform(-7, 7, (2, 1))], 1)


def draw_mouth(clip: Clip, size: int, rng: np.random.Generator) -> MouthCrop:
    """A changed mouth box of some frame of a clip; every second one is mirrored."""
    which = int(rng.integers(len(clip)))
    picture, landmarks = clip.frame(which), clip.landmarks[which]
    if rng.random() < 0.5:
        picture, landmarks = mirror_picture(picture), mirror_landmarks(landmarks)
    picture = soften(change_light(picture, rng), rng)
    crop = cut_mouth(picture, landmarks, size, change_place(rng))
    (toned,) = change_tone([((crop.picture.transpose(1, 2, 0) + 1) * 127.5).round().astype(np.uint8)], rng)
    return MouthCrop(toned, crop.points)
