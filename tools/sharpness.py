"""CPBD: the share of a picture's edges at which the eye sees no blur, 0 (all blurred) to 1.

N. D. Narvekar and L. J. Karam, "A No-Reference Image Blur Metric Based on the Cumulative Probability of
Blur Detection (CPBD)", IEEE Transactions on Image Processing 20(9), 2011. Written from the paper, with
scikit-image's edge detectors, so that values may differ in the second digit from the authors' MATLAB:

1. Blocks of 64 x 64 pixels count where more than 0.2 % of the pixels are edges (Canny).
2. In them, at each vertical edge (Sobel, thinned), the width w of the edge is the way along its row from the
   brightness's local minimum to its local maximum (Marziliano et al., ICIP 2002).
3. Blur is seen there with probability P = 1 - exp(-(w / w_jnb)^3.6), where w_jnb, the just noticeable width, is
   5 pixels in blocks of contrast up to 50 grey levels and 3 in others.
4. CPBD is the share of edges with P <= 63 %, which is P at w = w_jnb.

Compare values of pictures of like size and content only; a picture enlarged from a small one scores low.
"""

from __future__ import annotations

import cv2
import numpy as np
from skimage.feature import canny

BLOCK_PX = 64
LEAST_EDGE_SHARE = 0.002
BETA = 3.6
LOW_CONTRAST = 50  # grey levels; up to here blur is noticed later
JUST_NOTICEABLE_PX = {True: 5.0, False: 3.0}  # by "the block's contrast is low"
SEEN = 0.63
STEEPEST = np.tan(np.pi / 8)  # an edge is vertical when its gradient lies within 22.5 degrees of the row


def measure_cpbd(picture: np.ndarray) -> float | None:
    """CPBD of one picture.

    Args:
        picture: uint8 [H, W, 3] RGB or [H, W] grey.

    Returns:
        0 to 1, or ``None`` where no block has an edge.
    """
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    levels = grey.astype(np.float64)
    marked = canny(levels / 255)
    edges, widths = _vertical_edges(levels)
    seen = []
    for top in range(0, grey.shape[0] - BLOCK_PX + 1, BLOCK_PX):
        for left in range(0, grey.shape[1] - BLOCK_PX + 1, BLOCK_PX):
            block = (slice(top, top + BLOCK_PX), slice(left, left + BLOCK_PX))
            if marked[block].mean() <= LEAST_EDGE_SHARE:
                continue
            noticeable_px = JUST_NOTICEABLE_PX[bool(np.ptp(grey[block]) <= LOW_CONTRAST)]
            seen.append(1 - np.exp(-((widths[block][edges[block]] / noticeable_px) ** BETA)))
    probabilities = np.concatenate(seen) if seen else np.zeros(0)
    return float((probabilities.round(2) <= SEEN).mean()) if len(probabilities) else None


def mean_cpbd(frames: np.ndarray, every: int = 1) -> float | None:
    """Mean CPBD of every ``every``-th of frames uint8 [N, S, S, 3]; ``None`` where none has an edge."""
    known = [value for value in map(measure_cpbd, frames[::every]) if value is not None]
    return float(np.mean(known)) if known else None


def _vertical_edges(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thinned vertical edges, bool [H, W], and each one's width in pixels, float [H, W]."""
    across = cv2.Sobel(levels, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(levels, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_REPLICATE)
    strength = across**2
    edges = strength > 4 * strength.mean()
    edges[:, 1:-1] &= (strength[:, 1:-1] >= strength[:, :-2]) & (strength[:, 1:-1] > strength[:, 2:])
    edges[:, [0, -1]] = False
    edges &= np.abs(down) <= STEEPEST * np.abs(across)
    return edges, np.where(across > 0, _rise_px(levels), _rise_px(-levels))


def _rise_px(levels: np.ndarray) -> np.ndarray:
    """At each pixel, the length of the stretch of its row, through it, over which brightness only rises."""
    rising = np.diff(levels, axis=1) > 0  # [H, W - 1]: from pixel x to x + 1
    before, after = np.zeros_like(levels), np.zeros_like(levels)
    for x in range(1, levels.shape[1]):
        before[:, x] = (before[:, x - 1] + 1) * rising[:, x - 1]
    for x in range(levels.shape[1] - 2, -1, -1):
        after[:, x] = (after[:, x + 1] + 1) * rising[:, x]
    return np.maximum(before, 1) + np.maximum(after, 1)
