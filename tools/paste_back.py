"""Frames of the aligned view -> frames of the whole photo.

Only what moves is blended: where a frame shows what the portrait's own crop shows, the photo keeps its
pixels, its sharpness and its grain. The blend fades out before the crop's border, so there is no seam.
"""

from __future__ import annotations

import cv2
import numpy as np

LONG_SIDE_MAX_PX = 1920
_EDGE = 0.10  # of the crop's side: how wide the blend fades towards its border
_SAME, _OTHER = 4.0, 14.0  # grey levels: up to here a pixel is the crop's, from there on it is the frame's
_SPREAD = 0.06  # of the crop's side: the blend reaches so far around what moves
_FADE = 0.93  # a frame: what has moved is given back to the photo slowly, so that its edge does not flicker


class PasteBack:
    """Pastes one stream's frames, in order, into its photo.

    Args:
        photo: uint8 [H, W, 3] RGB, full resolution. It is made smaller to ``LONG_SIDE_MAX_PX`` and even.
        crop: uint8 [S, S, 3] RGB, the aligned view at rest.
        photo_from_crop: float [2, 3], photo pixels from crop pixels; first pixel's centre at (0.5, 0.5).
    """

    def __init__(self, photo: np.ndarray, crop: np.ndarray, photo_from_crop: np.ndarray) -> None:
        height, width = photo.shape[:2]
        scale = min(1.0, LONG_SIDE_MAX_PX / max(height, width))
        if scale < 1.0:
            photo = cv2.resize(photo, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        stretch = np.array([photo.shape[1] / width, photo.shape[0] / height])[:, None]
        self._photo = np.ascontiguousarray(photo[: photo.shape[0] // 2 * 2, : photo.shape[1] // 2 * 2])
        self._crop = crop
        matrix = photo_from_crop.astype(np.float64) * stretch
        self._place, self._matrix = _region(matrix, crop.shape[0], self._photo.shape)
        self._fade_in = _edge_fade(crop.shape[0])
        self._moved = np.zeros(crop.shape[:2], np.float32)
        zoom = float(np.hypot(*matrix[:, 0]))
        self._blur_px = 0.4 / zoom if zoom < 0.8 else 0.0  # shrinking without it would shimmer
        self._how = cv2.INTER_LINEAR if zoom <= 1.0 else cv2.INTER_CUBIC

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames that come out, even and at most ``LONG_SIDE_MAX_PX``."""
        return self._photo.shape[1], self._photo.shape[0]

    def paste(self, frame: np.ndarray) -> np.ndarray:
        """The photo with the next frame in it.

        Args:
            frame: uint8 [S, S, 3] RGB.

        Returns:
            uint8 [H, W, 3], new.
        """
        weight = self._warp(self._weight(frame))[..., None]
        inner = self._warp(cv2.GaussianBlur(frame, (0, 0), self._blur_px) if self._blur_px else frame)
        out = self._photo.copy()
        part = out[self._place]
        part[:] = np.rint(part + weight * (inner.astype(np.float32) - part)).astype(np.uint8)
        return out

    def _weight(self, frame: np.ndarray) -> np.ndarray:
        """How much of the frame to take, float32 [S, S] in [0, 1]."""
        size = len(frame)
        change = cv2.absdiff(frame, self._crop).max(axis=2).astype(np.float32)
        change = cv2.GaussianBlur(change, (0, 0), size / 200)  # grain is no movement
        moved = np.clip((change - _SAME) / (_OTHER - _SAME), 0.0, 1.0)
        reach = 2 * round(size * _SPREAD / 2) + 1
        moved = cv2.dilate(moved, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        self._moved = np.maximum(moved, self._moved * _FADE)
        return cv2.GaussianBlur(self._moved, (0, 0), size * _SPREAD / 6) * self._fade_in

    def _warp(self, image: np.ndarray) -> np.ndarray:
        """A picture of the crop, laid over the photo's region."""
        rows, columns = self._place
        size = (columns.stop - columns.start, rows.stop - rows.start)
        how = self._how if image.dtype == np.uint8 else cv2.INTER_LINEAR  # cubic would overshoot [0, 1]
        border = cv2.BORDER_REPLICATE if image.dtype == np.uint8 else cv2.BORDER_CONSTANT
        return cv2.warpAffine(image, self._matrix, size, flags=how, borderMode=border)


def _region(matrix: np.ndarray, crop_size: int, photo_shape: tuple[int, ...]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the photo that the crop covers, as (rows, columns), and crop -> part as OpenCV wants it."""
    corners = (
        np.array([[0, 0], [crop_size, 0], [0, crop_size], [crop_size, crop_size]]) @ matrix[:, :2].T + matrix[:, 2]
    )
    left, top = np.clip(np.floor(corners.min(0)), 0, (photo_shape[1] - 1, photo_shape[0] - 1)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), (left + 1, top + 1), (photo_shape[1], photo_shape[0])).astype(int)
    inner = matrix.copy()
    inner[:, 2] += inner[:, :2] @ (0.5, 0.5) - 0.5 - (left, top)  # OpenCV puts (0, 0) at the first pixel's centre
    return (slice(top, bottom), slice(left, right)), inner


def _edge_fade(size: int) -> np.ndarray:
    """float32 [size, size]: 0 at the crop's border, 1 inside, smooth between."""
    to_border = (np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / size
    ramp = np.clip((to_border - 0.01) / _EDGE, 0.0, 1.0)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)
