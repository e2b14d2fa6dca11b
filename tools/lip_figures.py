"""The figures that say how well rendered lips follow real ones; no input or output here.

Landmarks are float [N, 478, 3] in crop coordinates ([-1, 1] over the crop's sides); a frame without a
face is all NaN. Distances come out in pixels of the 256 px crop. A figure that cannot be had (no face, a
mouth that never moves) is ``None``, never a made-up number.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from engine.landmarks import CROP_SIZE, LIPS, mouth_opening, relative_pose

MAX_LAG_FRAMES = 5
LEAST_PAIRS = 8  # a correlation over fewer frames says nothing
FACE_POINTS = 468  # the irises' ten points follow the gaze, not the face
PX = CROP_SIZE / 2  # pixels of one crop unit


def align_landmarks(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Lay every frame rigidly, with scale, on ``reference`` [478, 3]; NaN frames stay NaN."""
    aligned = np.full_like(landmarks, np.nan)
    for index in np.flatnonzero(found_frames(landmarks)):
        rotation, shift = relative_pose(landmarks[index], reference)
        aligned[index] = landmarks[index] @ rotation.T + shift
    return aligned


def found_frames(landmarks: np.ndarray) -> np.ndarray:
    """bool [N]: the frames with a face."""
    return np.isfinite(landmarks).all((1, 2))


def opening_px(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip opening, [N] pixels (NaN without a face)."""
    return mouth_opening(landmarks) * PX


def correlate(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation over the entries where both are finite."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < LEAST_PAIRS:
        return None
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm > 1e-9 else None


def find_lag(rendered: np.ndarray, real: np.ndarray, max_lag: int = MAX_LAG_FRAMES) -> int | None:
    """Shift in frames at which the two correlate best; positive: the rendered one comes later."""
    best: tuple[float, int] | None = None
    for lag in sorted(range(-max_lag, max_lag + 1), key=abs):  # of equals the smaller shift
        late = rendered[max(lag, 0) : len(rendered) + min(lag, 0)]
        early = real[max(-lag, 0) : len(real) - max(lag, 0)]
        value = correlate(late, early)
        if value is not None and (best is None or value > best[0] + 1e-9):
            best = (value, lag)
    return None if best is None else best[1]


def lip_distance_px(a: np.ndarray, b: np.ndarray) -> float | None:
    """M-LMD: mean distance of the 40 lip points, each frame's centroid taken out."""
    a, b = a[:, LIPS, :2], b[:, LIPS, :2]
    return _mean_distance_px(a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True))


def face_distance_px(a: np.ndarray, b: np.ndarray) -> float | None:
    """F-LMD: mean distance of the 468 face points (after the rigid alignment)."""
    return _mean_distance_px(a[:, :FACE_POINTS, :2], b[:, :FACE_POINTS, :2])


def spread_px(opening: np.ndarray) -> float | None:
    """Standard deviation of an opening [N] over its known frames."""
    known = opening[np.isfinite(opening)]
    return float(known.std()) if len(known) >= LEAST_PAIRS else None


def divide(a: float | None, b: float | None) -> float | None:
    """a / b, ``None`` where either is unknown or ``b`` is nothing."""
    return None if a is None or b is None or abs(b) < 1e-9 else a / b


def std_ratio(rendered: np.ndarray, real: np.ndarray) -> float | None:
    """Standard deviation of the rendered opening / the real one's, over frames where both are known."""
    both = np.isfinite(rendered) & np.isfinite(real)
    if both.sum() < LEAST_PAIRS or real[both].std() < 1e-9:
        return None
    return float(rendered[both].std() / real[both].std())


def mean_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of Wang et al. 2004 (Gaussian window, sigma 1.5) over RGB, mean of frames uint8 [N, S, S, 3]."""
    options = dict(channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return float(np.mean([structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)]))


def mean_psnr_db(a: np.ndarray, b: np.ndarray) -> float | None:
    """PSNR in dB, mean of frames; ``None`` when all are equal. An equal frame among others is left out."""
    errors = np.array([np.mean((x.astype(np.float32) - y) ** 2) for x, y in zip(a, b, strict=True)])
    errors = errors[errors > 0]
    return float(np.mean(10 * np.log10(255**2 / errors))) if len(errors) else None


def _mean_distance_px(a: np.ndarray, b: np.ndarray) -> float | None:
    distance = np.linalg.norm(a - b, axis=-1).mean(-1) * PX
    known = distance[np.isfinite(distance)]
    return float(known.mean()) if len(known) else None
