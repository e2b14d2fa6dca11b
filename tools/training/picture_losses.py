"""What stage 3 is judged by, picture by picture: equation (9), weighted, and what the compact recipe adds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.landmarks import LIPS
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.geometry import CROP_PX, box_grid
from engine.s3dnerf.lip_reader import LipReader, feature_loss, lip_shape_loss, points_in_box
from engine.s3dnerf.model import Frame
from tools.training.loop import Batch, half
from tools.training.render_recipe import RenderRecipe
from tools.training.vgg import VggFeatures


def bend_loss(lattice: Tensor) -> Tensor:
    """Mean squared difference of neighbouring displacements: keeps the field from folding where nothing is known."""
    return lattice.diff(dim=-1).pow(2).mean() + lattice.diff(dim=-2).pow(2).mean()


def lip_blob(landmarks: Tensor, grid: Tensor) -> Tensor:
    """Soft spot over the mouth: [B, 478, 3] at grid [B, h, w, 2] -> [B, 1, h, w]."""
    lips = landmarks[:, torch.from_numpy(LIPS), :2]
    width = (lips[..., 0].amax(1) - lips[..., 0].amin(1))[:, None, None] * 0.6
    away = (grid - lips.mean(1)[:, None, None]).pow(2).sum(-1)
    return torch.exp(-away / width**2)[:, None]


class Truth(NamedTuple):
    """What the mouth box should show."""

    picture: Tensor  # [B, 3, M, M]
    inside: Tensor  # [B, 1, M, M], where the inside of the lips is to be painted
    grid: Tensor  # [B, M, M, 2], the box's pixels in the target


def mouth_truth(config: S3DConfig, frame: Frame, batch: Batch) -> Truth:
    """The real mouth box; a driven still, which has no picture, gets its warped self with a speaker's mouth inside."""
    grid = box_grid(frame.centre, config.mouth_box / CROP_PX, config.mouth_box)
    real = F.grid_sample(batch["target_image"], grid, align_corners=False, padding_mode="border")
    inside = F.grid_sample(batch["inside"], grid, align_corners=False)
    stand_in = torch.lerp(frame.warped.detach().float(), real, inside)
    return Truth(torch.where(batch["pictured"][:, None, None, None] > 0, real, stand_in), inside, grid)


def picture_losses(
    config: S3DConfig, frame: Frame, batch: Batch, truth: Truth, recipe: RenderRecipe
) -> dict[str, Tensor]:
    """The pixel term of equation (9) in its parts, each already weighted."""
    has = batch["pictured"][:, None, None, None]
    target, source = batch["target_image"], batch["source_image"]
    top, left, size = config.face_box_top, (CROP_PX - config.face_box) // 2, config.face_box
    box = (..., slice(top, top + size), slice(left, left + size))
    mask, wanted = batch["mask"][box] * has, target[box]
    small = F.interpolate(wanted, size=(config.rays, config.rays), mode="area")
    small_mask = F.interpolate(mask, size=(config.rays, config.rays), mode="area")
    flow = F.interpolate(frame.coarse.flow, size=(size, size), mode="bilinear").permute(0, 2, 3, 1)
    warped = F.grid_sample(source, flow, align_corners=False, padding_mode="border")
    inside = truth.inside
    weight = 1 + recipe.lip_weight * lip_blob(batch["target"], truth.grid) + recipe.inside_weight * inside * (1 - has)
    miss = frame.fine - truth.picture
    # The paint must cover the inside of the lips on any face; elsewhere it is free.
    uncovered = -torch.log(frame.paint.cover + 1e-3) * inside
    return {
        "coarse": ((frame.coarse.colour - small).abs() * small_mask).mean() * 0.5,
        "warp": ((warped - wanted).abs() * mask).mean(),
        "fine": (miss.abs() * weight).mean(),
        "edge": (miss.diff(dim=-1).abs() * weight[..., 1:]).mean()
        + (miss.diff(dim=-2).abs() * weight[..., 1:, :]).mean(),
        "opacity": ((1 - frame.coarse.opacity).pow(2) * small_mask).mean() * 0.1,
        "cover": uncovered.sum() / (inside.sum() + 100) * 0.03,
        "blurred": (F.avg_pool2d(miss, 4).abs() * F.avg_pool2d(weight, 4)).mean(),
    }


def reader_losses(
    reader: LipReader | VggFeatures, config: S3DConfig, frame: Frame, batch: Batch, truth: Truth, recipe: RenderRecipe
) -> dict[str, Tensor]:
    """What the frozen perceptual network sees: its features, and the lips that ours finds, each weighted."""
    with torch.no_grad(), half(frame.fine.device):
        wanted = reader.features(truth.picture)
    with half(frame.fine.device):
        made = reader.features(frame.fine)
    losses = {"perceptual": feature_loss(made, wanted) * recipe.weights.perceptual}
    if recipe.shape_weight > 0:
        assert isinstance(reader, LipReader), "VGG tells no lips"
        with half(frame.fine.device):
            told = reader.tell_points(made)
        points = points_in_box(batch["target"], frame.centre, config.mouth_box / CROP_PX)
        losses["shape"] = lip_shape_loss(told, points) * recipe.shape_weight
    return losses
