"""Blinks: the upper lids drawn down over the portrait's eyes before it is rendered.

The deformation field has a control for the lids, but the shipped checkpoint learned it too weakly to shut
an eye (speakers blink seldom). So the lid's skin is stretched down here, column by column, with its
lash line at its edge; the head's pose moves it along like the rest of the portrait.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
SKIN = 0.4  # eye widths of skin above the lash line that stretch
LASHES = 0.14  # eye widths of lashes at the lid's edge, which move as they are
RIM_PX = 0.5  # the lash line stands so far below the landmarks of the upper lid
SHUT = 0.95  # of the opening that a shut lid covers


class Eyelid(NamedTuple):
    """One eye's columns, in pixels of the picture."""

    top: int  # of the box that may change
    left: int
    height: int
    crease: Tensor  # [W], where the stretched skin begins
    lash: Tensor  # [W], the lash line of the open eye
    lower: Tensor  # [W], the lower lid


def find_eyelids(landmarks: np.ndarray, size: int = 256) -> list[Eyelid]:
    """Landmarks [478, 3] in crop coordinates -> the lids of both eyes (an eye seen edge-on has none)."""
    points = (landmarks[:, :2] + 1) / 2 * size - 0.5
    lids = []
    for upper_points, lower_points in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        upper, lower = (points[list(row)] for row in (upper_points, lower_points))
        columns = np.arange(max(0, int(np.ceil(upper[:, 0].min()))), min(size, int(upper[:, 0].max()) + 1))
        if len(columns) < 4:
            continue
        # np.interp wants rising x; a turned face's corner may hide behind the lid.
        high, low = (np.interp(columns, *row[np.argsort(row[:, 0])].T) for row in (upper, lower))
        low = np.maximum(low, high)
        skin = SKIN * len(columns)
        crease = np.maximum(high - skin, 0)
        top, bottom = int(crease.min()), min(size - 1, int(np.ceil(low.max())) + 1)
        lash = np.minimum(high + RIM_PX, low)
        parts = (torch.from_numpy(row.astype(np.float32)) for row in (crease, lash, low))
        lids.append(Eyelid(top, int(columns[0]), bottom - top, *parts))
    return lids


def shut_eyes(image: Tensor, lids: list[Eyelid], blink: float) -> Tensor:
    """Draw the upper lids down.

    Args:
        image: the portrait, [1, 3, H, W].
        lids: of it.
        blink: 0 open as in the portrait, 1 shut.

    Returns:
        a new picture, or ``image`` itself where there is nothing to do.
    """
    if blink <= 0 or not lids:
        return image
    drawn = image.clone()
    for lid in lids:
        rows = torch.arange(lid.top, lid.top + lid.height, dtype=torch.float32)[:, None]
        edge = lid.lash + min(blink, 1.0) * SHUT * (lid.lower - lid.lash)
        lashes = LASHES * len(lid.lash)
        skin, room = lid.lash - lashes - lid.crease, (edge - lashes - lid.crease).clamp_min(1e-3)
        stretched = lid.crease + (rows - lid.crease) * skin / room
        moved = torch.where(rows > edge - lashes, rows - edge + lid.lash, stretched)
        source = torch.where((rows > lid.crease) & (rows <= edge), moved, rows) - lid.top
        low = source.floor().clamp(0, lid.height - 2)
        part = source - low
        width = len(lid.lash)
        box = image[0, :, lid.top : lid.top + lid.height, lid.left : lid.left + width]
        index = low.long()[None].expand(3, -1, -1)
        found = box.gather(1, index) * (1 - part) + box.gather(1, index + 1) * part
        drawn[0, :, lid.top : lid.top + lid.height, lid.left : lid.left + width] = found
    return drawn


LID_ROWS = 4  # of ``lid_columns``
NO_LID_PX = 1e4  # a crease below the picture: nothing stretches


def lid_columns(lids: list[Eyelid], size: int = 256) -> Tensor:
    """All lids of a face in one, for ``shut_lids``: crease, lash line, lower lid and lashes of each column.

    Returns:
        float32 [4, size], pixels.
    """
    columns = torch.zeros(LID_ROWS, size)
    columns[0] = NO_LID_PX
    for lid in lids:  # the eyes stand side by side
        part = (lid.crease, lid.lash, lid.lower, torch.full_like(lid.lash, LASHES * len(lid.lash)))
        columns[:, lid.left : lid.left + len(lid.lash)] = torch.stack(part)
    return columns


def shut_lids(images: Tensor, columns: Tensor, blinks: Tensor) -> Tensor:
    """``shut_eyes`` for several portraits at once, without a look at the numbers: for a GPU.

    Args:
        images: [B, 3, H, W].
        columns: of ``lid_columns``, [B, 4, W].
        blinks: [B].

    Returns:
        new pictures; those with blink 0 are as they were.
    """
    height = images.shape[2]
    crease, lash, lower, lashes = columns[:, :, None].unbind(1)  # [B, 1, W]
    blink = blinks[:, None, None]
    rows = torch.arange(height, dtype=torch.float32, device=images.device)[:, None]
    edge = lash + blink.clamp(max=1.0) * SHUT * (lower - lash)
    skin, room = lash - lashes - crease, (edge - lashes - crease).clamp_min(1e-3)
    moved = torch.where(rows > edge - lashes, rows - edge + lash, crease + (rows - crease) * skin / room)
    source = torch.where((blink > 0) & (rows > crease) & (rows <= edge), moved, rows)
    low = source.floor().clamp(0, height - 2)
    part, index = (source - low)[:, None], low.long()[:, None].expand(-1, 3, -1, -1)
    return images.gather(2, index) * (1 - part) + images.gather(2, index + 1) * part
