"""Changes of pictures that training learns to live with: tone, light, softness, zoom and place."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine.landmarks import CROP_SIZE


def change_tone(images: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One random colour gain, lift, contrast and saturation for uint8 pictures -> float32 in [-1, 1], [3, H, W]."""
    gain, lift = rng.uniform(0.8, 1.2, 3), rng.uniform(-0.12, 0.12)
    grey, contrast = rng.uniform(0, 1) ** 2 if rng.random() < 0.5 else 0.0, rng.uniform(0.8, 1.25)
    out = []
    for image in images:
        x = image.astype(np.float32) / 127.5 - 1
        x = x * (1 - grey) + x.mean(2, keepdims=True) * grey
        out.append(np.clip(x * contrast * gain + lift, -1, 1).transpose(2, 0, 1).astype(np.float32))
    return out


def change_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light from one side, up to 45 % more there and less on the other: uint8 [H, W, 3]."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.45)
    axis = np.linspace(-1, 1, len(image), dtype=np.float32)
    slope = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    lit = image * (1 + strength * np.clip(slope, -1, 1))[..., None]
    return np.clip(lit, 0, 255).astype(np.uint8)


def soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, one time in three: uint8 [H, W, 3]."""
    if rng.random() > 1 / 3:
        return image
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))


def zoom(image: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another crop of the same face, a tenth closer or farther and off the middle: picture and landmarks."""
    scale = np.exp(rng.uniform(-0.1, 0.1))
    shift = np.array([*rng.uniform(-0.06, 0.06, 2), 0])
    zoomed = (landmarks * scale + shift).astype(np.float32)
    back = np.array([[1 / scale, 0, -shift[0] / scale], [0, 1 / scale, -shift[1] / scale]])
    return move(image, pixels_from_units(back)), zoomed


def pixels_from_units(affine: np.ndarray) -> np.ndarray:
    """An affine map [2, 3] of crop coordinates -> the same map of OpenCV's pixels, float32 [2, 3]."""
    half = CROP_SIZE / 2
    to_px = np.array([[half, 0, half - 0.5], [0, half, half - 0.5], [0, 0, 1]])
    whole = np.concatenate([affine, [[0, 0, 1]]])
    return (to_px @ whole @ np.linalg.inv(to_px))[:2].astype(np.float32)


def move(image: np.ndarray, source_from_target: np.ndarray) -> np.ndarray:
    """The picture whose pixels look where the affine map [2, 3] leads them; uint8 [256, 256, 3]."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, source_from_target, (CROP_SIZE,) * 2, flags=how, borderMode=cv2.BORDER_REPLICATE)
