"""The portrait warped by a frame's flow, and the finished picture, a row of pixels at a time; compiled by Numba.

The plain twins are ``stages.Render.forward`` behind the rays and ``finish`` there.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from engine.compile.kernel import kernel

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


@njit(inline="always", fastmath=True)
def _rows_between(y, scale, count):  # type: ignore[no-untyped-def]
    """Rows before and behind pixel row ``y`` of a map that is enlarged, and the share of the one behind."""
    place = max((np.float32(y) + HALF) * scale - HALF, ZERO)
    first = min(np.int64(place), count - 1)
    return first, min(first + 1, count - 1), place - np.float32(first)


@njit(inline="always", fastmath=True)
def _enlarge_row(line, small, y, scale):  # type: ignore[no-untyped-def]
    """Row ``y`` of ``small`` [2, n, n] bilinearly enlarged to ``line`` [2, size], as ``F.interpolate`` does."""
    count, size = small.shape[1], line.shape[1]
    high, low, down = _rows_between(y, scale, count)
    for x in range(size):
        left, right, across = _rows_between(x, scale, count)
        for i in range(2):
            above = small[i, high, left] + (small[i, high, right] - small[i, high, left]) * across
            below = small[i, low, left] + (small[i, low, right] - small[i, low, left]) * across
            line[i, x] = above + (below - above) * down


@kernel
def warp_head(warped, flow, begin, end, image, head, plain, face, seam, top, left, settle):  # type: ignore[no-untyped-def]
    """Warp some rows of the portrait: head by the pose, inner face by the rays.

    Args:
        warped: to fill, float32 [3, H, H].
        flow: to fill, where each pixel looks, float32 [2, H, H].
        begin, end: rows.
        image: the portrait, float32 [3, H, H].
        head: how far each pixel moves with the head, float32 [H, H].
        plain: flow of the undeformed head, float32 [2, n, n] over the whole crop.
        face: flow of the face box, float32 [2, rays, rays].
        seam: weight of the face box's flow, float32 [box, box], which stands at ``top`` and ``left``.
        settle: pixels; displacements fade to nothing from the second down to the first.
    """
    size, box = image.shape[1], seam.shape[0]
    at, inside = np.empty((2, size), np.float32), np.empty((2, box), np.float32)
    px, cell = np.float32(size) * HALF, np.float32(2) / np.float32(size)
    rest, fade = np.float32(settle[0]), ONE / np.float32(settle[1] - settle[0])
    last = np.float32(size - 1)
    for y in range(begin, end):
        _enlarge_row(at, plain, y, np.float32(plain.shape[1]) / np.float32(size))
        if top <= y < top + box:
            _enlarge_row(inside, face, y - top, np.float32(face.shape[1]) / np.float32(box))
            for x in range(box):
                weight = seam[y - top, x]
                across = weight * (inside[0, x] - at[0, left + x])
                down = weight * (inside[1, x] - at[1, left + x])
                length = np.float32(math.sqrt(across * across + down * down))
                share = min(max((length * px - rest) * fade, ZERO), ONE)
                share *= share * (np.float32(3) - np.float32(2) * share)
                at[0, left + x] += across * share
                at[1, left + x] += down * share
        here_y = (np.float32(y) + HALF) * cell - ONE
        for x in range(size):
            here_x = (np.float32(x) + HALF) * cell - ONE
            flow[0, y, x] = here_x + head[y, x] * (at[0, x] - here_x)
            flow[1, y, x] = here_y + head[y, x] * (at[1, x] - here_y)
        for x in range(size):
            place_x = min(max((flow[0, y, x] + ONE) * px - HALF, ZERO), last)
            place_y = min(max((flow[1, y, x] + ONE) * px - HALF, ZERO), last)
            x0, y0 = np.int64(place_x), np.int64(place_y)
            x1, y1 = min(x0 + 1, size - 1), min(y0 + 1, size - 1)
            across, down = place_x - np.float32(x0), place_y - np.float32(y0)
            for i in range(3):
                above = image[i, y0, x0] + (image[i, y0, x1] - image[i, y0, x0]) * across
                below = image[i, y1, x0] + (image[i, y1, x1] - image[i, y1, x0]) * across
                warped[i, y, x] = above + (below - above) * down


@kernel
def finish(picture, warped, colour, cover, paintable, top, left):  # type: ignore[no-untyped-def]
    """Lay the paint over the warped portrait and round to bytes.

    Args:
        picture: to fill, uint8 [H, H, 3].
        warped: float32 [3, H, H] in [-1, 1].
        colour, cover: of the mouth box, float32 [3, M, M] and [M, M].
        paintable: where paint may cover, float32 [H, H].
        top, left: corner of the mouth box.
    """
    size, box = warped.shape[1], cover.shape[0]
    scale, middle, full = np.float32(127.5), np.float32(128), np.float32(255)
    for y in range(size):
        inside = top <= y < top + box
        for x in range(size):
            if inside and left <= x < left + box:
                share = cover[y - top, x - left] * paintable[y, x]
                for i in range(3):
                    value = warped[i, y, x]
                    value += share * (colour[i, y - top, x - left] - value)
                    picture[y, x, i] = np.uint8(min(max(value * scale + middle, ZERO), full))
            else:
                for i in range(3):
                    picture[y, x, i] = np.uint8(min(max(warped[i, y, x] * scale + middle, ZERO), full))
