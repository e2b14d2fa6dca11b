"""The samples of one frame's rays, looked up and gathered in one pass each, compiled for the CPU by Numba.

The plain twin is ``Renderer.forward`` (equations 2, 4 and 5); both are compared in tests. PyTorch writes every step of
it to memory, for sixteen thousand samples at once; here a sample's place stays in registers and its twelve corner rows
are added up in one loop. The decoder's two layers in between are matrix products, which PyTorch does best.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.compile.kernel import kernel

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class Box(NamedTuple):
    """Rays of the face box; all in crop units."""

    rays: int  # along a side
    extent: np.float32  # half side of the box
    top: np.float32  # its centre's height
    band: np.float32  # samples lie within so much of the depth centre
    lattice_extent: np.float32  # half side of the lattice, in eye distances
    lattice_rise: np.float32  # its centre above the mouth's, in eye distances


@njit(inline="always", fastmath=True)
def _clamped(place, last):  # type: ignore[no-untyped-def]
    """Corner before, corner behind and share of the one behind, at a place of a row that goes on at its ends."""
    place = min(max(place, ZERO), np.float32(last))
    low = np.uint64(place)  # unsigned: Numba need not look for places counted from the end
    return low, min(low + np.uint64(1), np.uint64(last)), place - np.float32(low)


@njit(inline="always", fastmath=True)
def _depth_at(depth, x, y):  # type: ignore[no-untyped-def]
    size = depth.shape[0]
    scale = np.float32(size) * HALF
    left, right, across = _clamped((x + ONE) * scale - HALF, size - 1)
    high, low, down = _clamped((y + ONE) * scale - HALF, size - 1)
    above = depth[high, left] + (depth[high, right] - depth[high, left]) * across
    below = depth[low, left] + (depth[low, right] - depth[low, left]) * across
    return above + (below - above) * down


@njit(inline="always", fastmath=True)
def _displace(point, lattice, mouth, unit, box):  # type: ignore[no-untyped-def]
    """``x~ = x + dx`` in place: ``DeformationField.displace`` of one point, nothing outside the lattice."""
    size = lattice.shape[1]
    reach = unit * box.lattice_extent
    x = ((point[0] - mouth[0]) / reach + ONE) * np.float32(size) * HALF - HALF
    y = ((point[1] - (mouth[1] - box.lattice_rise * unit)) / reach + ONE) * np.float32(size) * HALF - HALF
    left, high = np.int64(math.floor(x)), np.int64(math.floor(y))
    if left < -1 or high < -1 or left >= size or high >= size:
        return
    across, down = x - np.float32(left), y - np.float32(high)
    depths = lattice.shape[0] // 3
    level = min(max((point[2] - mouth[2]) / unit + HALF, ZERO), ONE) * np.float32(depths - 1)
    first = min(np.int64(level), max(depths - 2, 0))
    behind = level - np.float32(first)
    moved = (ZERO, ZERO, ZERO)
    for far in range(min(2, depths)):
        hat = behind if far else ONE - behind
        plane = 3 * (first + far)
        for corner in range(4):
            row, column = high + corner // 2, left + corner % 2
            if row < 0 or column < 0 or row >= size or column >= size:
                continue
            weight = hat * (across if corner % 2 else ONE - across) * (down if corner // 2 else ONE - down)
            moved = (
                moved[0] + weight * lattice[plane, row, column],
                moved[1] + weight * lattice[plane + 1, row, column],
                moved[2] + weight * lattice[plane + 2, row, column],
            )
    point[0] += moved[0] * unit
    point[1] += moved[1] * unit
    point[2] += moved[2] * unit


@njit(inline="always", fastmath=True)
def _look_up(found, at, table, size, x, y, z):  # type: ignore[no-untyped-def]
    """Sum of the three planes at a point -> row ``at`` of ``found`` [P, hidden]."""
    scale = np.float32(size) * HALF
    x0, x1, x = _clamped((x + ONE) * scale - HALF, size - 1)
    y0, y1, y = _clamped((y + ONE) * scale - HALF, size - 1)
    z0, z1, z = _clamped((z + ONE) * scale - HALF, size - 1)
    side = np.uint64(size)
    xy0, xy1 = y0 * side, y1 * side
    yz0, yz1 = (side + z0) * side, (side + z1) * side
    xz0, xz1 = (side + side + z0) * side, (side + side + z1) * side
    nx, ny, nz = ONE - x, ONE - y, ONE - z
    for i in range(found.shape[1]):  # one expression: added up plane by plane it is not computed many at a time
        found[at, i] = (
            ny * (nx * table[xy0 + x0, i] + x * table[xy0 + x1, i])
            + y * (nx * table[xy1 + x0, i] + x * table[xy1 + x1, i])
            + nz * (ny * table[yz0 + y0, i] + y * table[yz0 + y1, i])
            + z * (ny * table[yz1 + y0, i] + y * table[yz1 + y1, i])
            + nz * (nx * table[xz0 + x0, i] + x * table[xz0 + x1, i])
            + z * (nx * table[xz1 + x0, i] + x * table[xz1 + x1, i])
        )


@kernel
def sample_rays(places, found, begin, end, lattice, table, depth, rotation, shift, mouth, unit, box):  # type: ignore[no-untyped-def]
    """Place the samples of some rows of rays, move them by the lattice and look them up.

    Args:
        places: to fill, where each sample lies in the source, float32 [n, n, S, 2] (x and y).
        found: to fill, what the planes hold there, float32 [n * n * S, hidden].
        begin, end: rows.
        lattice: float32 [3 Dz, N, N].
        table: baked planes, float32 [3 * S * S, hidden] (``table_of``).
        depth: depth centres, float32 [32, 32].
        rotation, shift: the pose, float32 [3, 3] and [3].
        mouth, unit: the anchor, float32 [3] and one float32.
        box: of the model.
    """
    n, samples = box.rays, places.shape[2]
    size = int(round(math.sqrt(table.shape[0] / 3)))
    half = box.extent / np.float32(n) * np.float32(2)
    point = np.empty(3, np.float32)
    for row in range(begin, end):
        y = half * (np.float32(row) + HALF) - box.extent + box.top
        for column in range(n):
            x = half * (np.float32(column) + HALF) - box.extent
            z = _depth_at(depth, x, y)
            met_x = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z + shift[0]
            met_y = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z + shift[1]
            met_z = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z + shift[2]
            z += (_depth_at(depth, met_x, met_y) - met_z) / rotation[2, 2]
            for sample in range(samples):
                step = ZERO
                if samples > 1:
                    step = box.band * (np.float32(2 * sample) / np.float32(samples - 1) - ONE)
                for i in range(3):
                    point[i] = rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * (z + step) + shift[i]
                _displace(point, lattice, mouth, unit, box)
                places[row, column, sample, 0] = point[0]
                places[row, column, sample, 1] = point[1]
                at = (row * n + column) * samples + sample
                _look_up(found, at, table, size, point[0], point[1], point[2])


@kernel
def turn_head(plain, depth, rotation, shift):  # type: ignore[no-untyped-def]
    """Where the undeformed head looks: ``Render.plain_head``.

    Args:
        plain: to fill, float32 [2, n, n] over the whole crop.
        depth: depth centres, float32 [32, 32].
        rotation, shift: the pose, float32 [3, 3] and [3].
    """
    n = plain.shape[1]
    cell = np.float32(2) / np.float32(n)
    for row in range(n):
        y = (np.float32(row) + HALF) * cell - ONE
        for column in range(n):
            x = (np.float32(column) + HALF) * cell - ONE
            z = _depth_at(depth, x, y)
            for i in range(2):
                plain[i, row, column] = rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * z + shift[i]


@kernel
def composite_rays(seen, told, places, begin, end, slab):  # type: ignore[no-untyped-def]
    """Gather what the samples of some rows of rays told (equation 5).

    Args:
        seen: to fill, float32 [3 + F + 1 + 2, n, n]: colour, features, opacity, flow.
        told: of these rows alone, density before softplus, colour before tanh, features; float32 [rows, n, S, 4 + F].
        places: of the samples, float32 [n, n, S, 2].
        begin, end: rows.
        slab: how thick a sample is.
    """
    outputs = told.shape[3]
    sums = np.empty(outputs, np.float32)
    for row in range(begin, end):
        for column in range(told.shape[1]):
            light, opacity, flow_x, flow_y = ONE, ZERO, ZERO, ZERO
            sums[:] = ZERO
            for sample in range(told.shape[2]):
                # exp(-softplus(d)) is 1 / (1 + exp(d)): one exponential in place of two and a logarithm
                passed = ONE / (ONE + np.float32(math.exp(min(told[row - begin, column, sample, 0], np.float32(80)))))
                if slab != ONE:
                    passed = np.float32(passed**slab)
                weight = light * (ONE - passed)
                light *= passed
                opacity += weight
                flow_x += weight * places[row, column, sample, 0]
                flow_y += weight * places[row, column, sample, 1]
                for j in range(1, 4):
                    sums[j] += weight * _tanh(told[row - begin, column, sample, j])
                for j in range(4, outputs):
                    sums[j] += weight * told[row - begin, column, sample, j]
            for j in range(1, outputs):
                seen[j - 1, row, column] = sums[j]
            for j in range(3):
                seen[j, row, column] -= ONE - opacity
            seen[outputs - 1, row, column] = opacity
            seen[outputs, row, column] = flow_x / (opacity + np.float32(1e-4))
            seen[outputs + 1, row, column] = flow_y / (opacity + np.float32(1e-4))


@njit(inline="always", fastmath=True)
def _tanh(x):  # type: ignore[no-untyped-def]
    """Within 1e-4, by Lambert's continued fraction; exp() would not be computed many at a time."""
    x = min(max(x, np.float32(-4.97)), np.float32(4.97))
    s = x * x
    up = ((s + np.float32(378)) * s + np.float32(17325)) * s + np.float32(135135)
    down = ((np.float32(28) * s + np.float32(3150)) * s + np.float32(62370)) * s + np.float32(135135)
    return x * up / down
