"""Boxes, anchors and depth on the crop; everything in crop units ([-1, 1], z away from the camera)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.landmarks import EYE_OUTER, FACE_OVAL, LIPS

CROP_PX = 256
DEPTH_SIZE = 32  # side of a depth map


class Anchor(NamedTuple):
    """Where a face's mouth is, and the face's yardstick."""

    mouth: Tensor  # [B, 3]
    unit: Tensor  # [B, 1], distance of the outer eye corners


class Pose(NamedTuple):
    """``x_src = rotation x_tar + shift``: the inverse source pose with the target's taken out (equation 2)."""

    rotation: Tensor  # [B, 3, 3], with scale
    shift: Tensor  # [B, 3]

    def to_source(self, points: Tensor) -> Tensor:
        """[B, P, 3] -> [B, P, 3]."""
        return points @ self.rotation.transpose(1, 2) + self.shift[:, None]

    def to_target(self, points: Tensor) -> Tensor:
        """[B, P, 3] -> [B, P, 3], the way back."""
        return (points - self.shift[:, None]) @ torch.linalg.inv(self.rotation).transpose(1, 2)


def anchor_of(landmarks: Tensor) -> Anchor:
    """Landmarks [B, 478, 3] -> the mouth's centre and the outer eye distance."""
    eyes = landmarks[:, EYE_OUTER[0], :2] - landmarks[:, EYE_OUTER[1], :2]
    return Anchor(landmarks[:, torch.from_numpy(LIPS)].mean(1), eyes.norm(dim=-1, keepdim=True))


def depth_of(landmarks: Tensor, width: float = 0.06) -> Tensor:
    """Depth centres from the landmarks: [B, 478, 3] -> [B, 1, 32, 32].

    A kernel regression of the mesh's z over the crop; far from the face it falls back to the contour's
    depth. Rays sample density close to these centres only.
    """
    axis = pixel_centres(DEPTH_SIZE, landmarks.device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
    mesh = landmarks[:, :468]
    weight = torch.exp(-(torch.cdist(grid.expand(len(mesh), -1, -1), mesh[..., :2]) ** 2) / (2 * width**2))
    back = mesh[:, torch.from_numpy(FACE_OVAL), 2].mean(1)[:, None]
    depth = ((weight * mesh[:, None, :, 2]).sum(-1) + 0.05 * back) / (weight.sum(-1) + 0.05)
    return depth.reshape(-1, 1, DEPTH_SIZE, DEPTH_SIZE)


def pixel_centres(count: int, device: torch.device | None = None) -> Tensor:
    """Centres of ``count`` equal cells over [-1, 1]."""
    return (torch.arange(count, device=device) + 0.5) / count * 2 - 1


def box_grid(centre: Tensor, half: float | Tensor, points: int) -> Tensor:
    """Sampling points of square boxes: centre [B, 2] and half side -> [B, points, points, 2]."""
    axis = pixel_centres(points, centre.device) * half
    square = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return square[None] + centre[:, None, None]
