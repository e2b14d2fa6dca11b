"""Masks of a portrait's crop: the person against the background, and the inner face."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import cv2
import numpy as np

from engine.landmarks import FACE_OVAL

REFINE_RADIUS = 6  # pixels of a 256 crop: how far an edge of the matte may move to the picture's edge
REFINE_EPSILON = 2e-3  # variance of brightness (0..1) below which a region counts as flat
FACE_SOFTNESS = 0.02  # blur of the face mask's edge, part of the crop's side


def person_matte(wide: np.ndarray, crop: np.ndarray, crop_from_wide: np.ndarray) -> np.ndarray:
    """How much of each pixel is the person (head, hair, shoulders).

    MediaPipe's selfie segmentation sees more than the crop, because shoulders help it; its coarse
    edge is then drawn to the crop's own edges by a guided filter (He et al. 2010).

    Args:
        wide: uint8 [W, W, 3] RGB, the crop's surroundings.
        crop: uint8 [S, S, 3] RGB.
        crop_from_wide: float [2, 3], crop pixels from wide pixels.

    Returns:
        uint8 [S, S], 255 is person.
    """
    size = crop.shape[0]
    coarse = _thread_segmenter().find(wide)
    matrix = crop_from_wide.astype(np.float64)
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    coarse = cv2.warpAffine(coarse, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    guide = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    fine = _guided(guide, coarse, round(REFINE_RADIUS * size / 256))
    # Pull the ends apart: what is nearly person or nearly background becomes it.
    return (np.clip((fine - 0.1) / 0.8, 0, 1) * 255).round().astype(np.uint8)


def face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The inner face with a soft edge: forehead to chin, cheek to cheek.

    Args:
        landmarks: float32 [478, 3] in [-1, 1] over the crop.
        size: side of the crop in pixels.

    Returns:
        uint8 [size, size], 255 is face.
    """
    fine = 8  # parts of a pixel that the outline is drawn with
    outline = ((landmarks[FACE_OVAL, :2] + 1) * size / 2 - 0.5) * fine
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (255,), cv2.LINE_AA, 3)
    return cv2.GaussianBlur(mask, (0, 0), FACE_SOFTNESS * size)


def _guided(guide: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Guided filter: in each window, the mask as a linear function of the guide. float32 [S, S] both."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + REFINE_EPSILON)
    return mean(slope) * guide + mean(mean_mask - slope * mean_guide)


class _Segmenter:
    """MediaPipe's selfie segmentation, closed when nobody refers to it any more; one per thread."""

    def __init__(self) -> None:
        from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

        self._model: Any = SelfieSegmentation(model_selection=0)
        self.close = weakref.finalize(self, self._model.close)

    def find(self, image: np.ndarray) -> np.ndarray:
        """Likelihood of a person, float32 [H, W], in a picture uint8 [H, W, 3] RGB."""
        return self._model.process(np.ascontiguousarray(image)).segmentation_mask.astype(np.float32)


_of_thread = threading.local()


def _thread_segmenter() -> _Segmenter:
    """This thread's model, made on first use and closed when the thread ends."""
    segmenter = getattr(_of_thread, "segmenter", None)
    if segmenter is None:
        segmenter = _of_thread.segmenter = _Segmenter()
    return segmenter
