"""The person apart from the background: a fine matte, and colours in which no background is left.

A matte from segmentation knows where the person is to some pixels. Near its edge, each pixel's share is
worked out anew by closed-form matting (Levin, Lischinski and Weiss, "A closed-form solution to natural image
matting", 2008): within any 3 x 3 pixels the share is an affine function of the colour. Then the person's own
colour behind each mixed pixel is estimated by blurring (Forte, "Approximate fast foreground colour
estimation", 2021) and goes on beyond the edge, so that neither blending nor a video codec brings back a rim of
the old background.

pymatting has both, but brings numba, whose compiler would make the first portrait wait for many seconds.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

INNER_PX, OUTER_PX = 5, 6  # of a 256 crop: how far inside and outside its edge the matte is in doubt
FLATNESS = 1e-4  # variance of colour (0..1) below which a window counts as flat
TRUST = 0.02  # of the matte that is refined, against the colours
ENDS = (0.06, 0.92)  # shares that become none and all
BLURS_PX = (45, 6)  # of a 256 crop, coarse to fine
SOFT_EDGE_PX = 10  # shoulders and hair that reach the crop's sides or top fade over so many pixels


def cut_out(crop: np.ndarray, matte: np.ndarray, face_mask: np.ndarray) -> np.ndarray:
    """The person of a crop, to be laid on any background.

    Args:
        crop: uint8 [S, S, 3] RGB.
        matte: uint8 [S, S], 255 is the person, right to some pixels.
        face_mask: uint8 [S, S], 255 is the inner face, which is always kept.

    Returns:
        uint8 [S, S, 4]: RGB, not multiplied by the alpha behind it.
    """
    share = refine_matte(crop, matte, face_mask)
    colour = own_colours(crop, share)
    share = np.maximum(share * _soft_edges(len(crop)), face_mask / np.float32(255))
    return np.dstack([colour, (share * 255).round().astype(np.uint8)])


def refine_matte(crop: np.ndarray, matte: np.ndarray, face_mask: np.ndarray) -> np.ndarray:
    """Each pixel's share of the person, float32 [S, S] in [0, 1]; arguments as of ``cut_out``."""
    scale = len(crop) / 256
    prior = matte.astype(np.float64) / 255
    person = cv2.erode((prior > 0.95).astype(np.uint8), _disc(INNER_PX * scale)).astype(bool) | (face_mask > 200)
    background = cv2.erode((prior < 0.05).astype(np.uint8), _disc(OUTER_PX * scale)).astype(bool) & ~person
    known = (person | background).ravel()
    if known.all() or not known.any():
        return prior.astype(np.float32)
    doubted, settled = np.flatnonzero(~known), np.flatnonzero(known)
    rows = _matting_laplacian(crop.astype(np.float64) / 255, known)[doubted]
    guess = prior.ravel()[doubted]
    system = rows[:, doubted] + sparse.diags(np.full(len(doubted), TRUST))
    wanted = TRUST * guess - rows[:, settled] @ person.ravel()[settled].astype(np.float64)
    found, _ = cg(system, wanted, x0=guess, rtol=1e-3, maxiter=200, M=sparse.diags(1 / system.diagonal()))
    share = person.ravel().astype(np.float64)
    share[doubted] = found
    low, high = ENDS
    return np.clip((share.reshape(prior.shape) - low) / (high - low), 0, 1).astype(np.float32)


def own_colours(crop: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The person's colours, also behind pixels that are mixed with background: uint8 [S, S, 3].

    Args:
        crop: uint8 [S, S, 3].
        share: float32 [S, S] in [0, 1], how much of each pixel is the person.
    """
    picture, share = crop.astype(np.float32), share[..., None]
    person, background = picture, picture
    for blur_px in BLURS_PX:
        side = 2 * round(blur_px * len(crop) / 256) + 1

        def blurred(x: np.ndarray, side: int = side) -> np.ndarray:
            return cv2.blur(x, (side, side), borderType=cv2.BORDER_REFLECT).reshape(x.shape)

        weight = blurred(share)
        person = blurred(person * share) / (weight + 1e-5)
        background = blurred(background * (1 - share)) / (1 - weight + 1e-5)
        person = np.clip(person + share * (picture - share * person - (1 - share) * background), 0, 255)
    return np.where(share == 1, crop, person.round()).astype(np.uint8)


def _matting_laplacian(picture: np.ndarray, known: np.ndarray) -> sparse.csr_matrix:
    """Levin's equation (12), of all 3 x 3 windows that hold a pixel in doubt.

    Args:
        picture: float64 [H, W, 3] in [0, 1].
        known: bool [H * W].
    """
    height, width = picture.shape[:2]
    index = np.arange(height * width).reshape(height, width)
    windows = np.lib.stride_tricks.sliding_window_view(index, (3, 3)).reshape(-1, 9)
    windows = windows[~known[windows].all(1)]
    colours = picture.reshape(-1, 3)[windows]  # [n, 9, 3]
    apart = colours - colours.mean(1, keepdims=True)
    covariance = (apart.transpose(0, 2, 1) @ apart + FLATNESS * np.eye(3)) / 9
    affinity = (1 + apart @ np.linalg.inv(covariance) @ apart.transpose(0, 2, 1)) / 9
    values = np.eye(9) - affinity
    at = np.repeat(windows, 9, axis=1).ravel(), np.tile(windows, (1, 9)).ravel()
    return sparse.csr_matrix((values.ravel(), at), shape=(height * width,) * 2)


def _soft_edges(size: int) -> np.ndarray:
    """1 inside, falling to 0 at the left, right and upper side: float32 [size, size]."""
    ramp = np.clip((np.arange(size, dtype=np.float32) + 0.5) / (SOFT_EDGE_PX * size / 256), 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return ramp[:, None] * np.minimum(ramp, ramp[::-1])[None]


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
