"""The perceptual network (L_perceptual of equation 9): ours, since VGG's weights cannot be had freely.

It looks at the mouth box and tells where the 40 lip points are, and can rebuild the picture from its shallow
maps; so its features know lips and still hold teeth. Trained by ``tools/training/perceptual_stage.py``, then frozen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.landmarks import LIPS
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.encoder import conv_block

WIDTHS = (24, 48, 96, 128)  # channels at 1/2, 1/4, 1/8 and 1/16 of the box
STEP = 16  # the box's side must be a multiple of it


class Told(NamedTuple):
    """What a picture of a mouth box tells."""

    features: list[Tensor]  # [B, WIDTHS[i], size / 2^(i + 1), same]
    points: Tensor  # [B, 40, 2], lip points in [-1, 1] over the box, in the order of engine.landmarks.LIPS


class LipReader(nn.Module):
    """Reads lips from pictures.

    Args:
        size: side of the mouth box in pixels, a multiple of 16.
    """

    def __init__(self, size: int = S3DConfig().mouth_box) -> None:
        super().__init__()
        if size < STEP or size % STEP:
            raise ValueError(f"a mouth box of {size} px cannot be read; take a multiple of {STEP}")
        self.size = size
        # All pixels at half the size, so that the first maps see every edge and cost a quarter.
        self.scales = nn.ModuleList(
            [
                conv_block(3 * 4, WIDTHS[0]),
                *(
                    nn.Sequential(conv_block(i, o, 2), conv_block(o, o))
                    for i, o in zip(WIDTHS, WIDTHS[1:], strict=False)
                ),
            ]
        )
        self.points = nn.Sequential(
            nn.Flatten(), nn.Linear(WIDTHS[-1] * (size // STEP) ** 2, 128), nn.SiLU(), nn.Linear(128, 2 * len(LIPS))
        )

    def features(self, picture: Tensor) -> list[Tensor]:
        """[B, 3, size, size] in [-1, 1] -> maps at four scales, fine to coarse: ``Told.features``."""
        if picture.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"the lip reader reads [B, 3, {self.size}, {self.size}], not {list(picture.shape)}")
        maps = []
        x = F.pixel_unshuffle(picture, 2)
        for scale in self.scales:
            x = scale(x)
            maps.append(x)
        return maps

    def forward(self, picture: Tensor) -> Told:
        """[B, 3, size, size] in [-1, 1] -> features and lip points."""
        maps = self.features(picture)
        return Told(maps, self.tell_points(maps))

    def tell_points(self, maps: list[Tensor]) -> Tensor:
        """What ``features`` gave -> ``Told.points``."""
        return self.points(maps[-1]).float().unflatten(1, (-1, 2))


def feature_loss(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean over scales of the L1 distance of features of length 1 at each place; the real ones are the fixed side."""
    losses = []
    for m, r in zip(made, real, strict=True):
        # A place's features have about sqrt(channels) parts in play: scaled so, all scales weigh the same.
        away = F.normalize(m.float(), dim=1) - F.normalize(r.detach().float(), dim=1)
        losses.append(away.abs().mean() * m.shape[1] ** 0.5)
    return torch.stack(losses).mean()


def perceptual_loss(network: LipReader, made: Tensor, real: Tensor) -> Tensor:
    """L_perceptual of mouth boxes, [B, 3, size, size] in [-1, 1] each."""
    with torch.no_grad():
        truth = network.features(real)
    return feature_loss(network.features(made), truth)


def lip_shape_loss(points: Tensor, wanted: Tensor) -> Tensor:
    """How far the lips that a picture shows are from where they should be, in box units.

    Args:
        points: told by the frozen network, [B, 40, 2].
        wanted: ``points_in_box`` of the target's landmarks, or what the network tells of the real picture.
    """
    return F.smooth_l1_loss(points, wanted.detach(), beta=0.02)


def points_in_box(landmarks: Tensor, centre: Tensor, extent: float) -> Tensor:
    """Lip points relative to a mouth box.

    Args:
        landmarks: [B, 478, 3], crop units.
        centre: of the box, [B, 2], crop units.
        extent: half its side, crop units (mouth_box / 256).

    Returns:
        [B, 40, 2], [-1, 1] over the box.
    """
    return (landmarks[:, torch.from_numpy(LIPS), :2] - centre[:, None]) / extent
