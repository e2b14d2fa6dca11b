"""Tri-plane look-up and volume rendering of the inner face (paper, equations 2 and 5).

The decoder's first linear layer commutes with interpolation, so it is folded into the four scales once
per portrait (*baking*): one set of three planes is looked up instead of twelve. Beside colour the rays
composite the deformed source coordinate: where in the portrait each pixel looks.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, box_grid


class Coarse(NamedTuple):
    """What the rays of the face box see; n = config.rays."""

    colour: Tensor  # [B, 3, n, n] in [-1, 1]
    features: Tensor  # [B, F, n, n]
    opacity: Tensor  # [B, 1, n, n]
    flow: Tensor  # [B, 2, n, n], expected deformed source coordinate, crop units
    depth: Tensor  # [B, 1, n, n], expected depth in the source's space


class Renderer(nn.Module):
    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        hidden, self.planes = config.plane_features, config.plane_size
        self.rays, self.samples, self.band = config.rays, config.samples, config.depth_band
        self.slab = 1.0  # how thick the part of a ray is that a sample stands for, in those of ``config``
        self.extent = config.face_box / CROP_PX
        self.top = (config.face_box_top + config.face_box / 2) / CROP_PX * 2 - 1
        self.fold = nn.ModuleList(nn.Conv2d(config.plane_channels, hidden, 1, bias=False) for _ in range(4))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.middle: Tensor  # of the face box; a buffer, since a CUDA graph takes no numbers from the CPU
        self.register_buffer("middle", torch.tensor([[0.0, self.top]]), persistent=False)
        self.decoder = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 4 + config.features)
        )

    def with_samples(self, samples: int) -> Renderer:
        """The same renderer, on the same weights, with another number of samples (at least 1) along a ray.

        Each sample stands for a slab of the ray. Fewer and thicker ones cover the same stretch, each the denser for it.
        """
        other = copy.copy(self)
        thicker = self.samples / samples
        other.samples, other.slab = samples, self.slab * thicker
        other.band = self.band * thicker * (samples - 1) / (self.samples - 1)
        return other

    def bake(self, pyramid: list[Tensor]) -> Tensor:
        """F_0..F_3 [B, 3C, H_i, W_i] -> planes [B, 3, hidden, S, S] (xy, yz, xz), the first layer folded in."""
        total: Tensor | None = None
        for fold, scale in reversed(list(zip(self.fold, pyramid, strict=True))):  # the coarsest first
            flat = fold(scale.reshape(-1, scale.shape[1] // 3, *scale.shape[2:]))
            total = flat if total is None else flat + F.interpolate(total, size=flat.shape[-2:], mode="bilinear")
        assert total is not None
        if total.shape[-1] != self.planes:
            total = F.interpolate(total, size=(self.planes, self.planes), mode="bilinear")
        return total.unflatten(0, (-1, 3))

    def look_up(self, planes: Tensor, points: Tensor) -> Tensor:
        """Sum of the three planes at source points [B, P, 3] -> [B, P, hidden].

        Planes [S, 3, hidden, N, N] of fewer portraits serve B / S frames each, one behind the other.
        """
        batch, _, hidden, size, _ = planes.shape
        frames = points.shape[0]
        points = points.reshape(batch, -1, 3)
        at = torch.stack([points[..., :2], points[..., 1:], points[..., ::2]], 1)  # [B, 3, P, 2]
        found = F.grid_sample(
            planes.reshape(batch * 3, hidden, size, size),
            at.reshape(batch * 3, 1, -1, 2),
            align_corners=False,
            padding_mode="border",
        )
        return found.reshape(batch, 3, hidden, -1).sum(1).transpose(1, 2).reshape(frames, -1, hidden) + self.bias

    def look_up_table(self, table: Tensor, points: Tensor) -> Tensor:
        """``look_up`` for one portrait on a CPU, its planes laid by ``table_of``: [1, P, 3] -> [1, P, hidden].

        Each point gathers its twelve corner rows in one ``embedding_bag``; twice as fast as three samplers.
        """
        size = self.planes
        x, y, z = ((points[0, :, i] + 1) * (size / 2) - 0.5 for i in range(3))
        low, high, part = [], [], []
        for place in (x, y, z):
            place = place.clamp(0, size - 1)
            floor = place.floor()
            low.append(floor.int())
            high.append((floor + 1).clamp_max(size - 1).int())
            part.append(place - floor)
        rows, weights = [], []
        for plane, (across, down) in enumerate(((0, 1), (1, 2), (0, 2))):
            for far_down in (0, 1):
                row = (high if far_down else low)[down] * size + plane * size * size
                weight = part[down] if far_down else 1 - part[down]
                rows += [row + low[across], row + high[across]]
                weights += [weight * (1 - part[across]), weight * part[across]]
        found = F.embedding_bag(torch.stack(rows, 1), table, per_sample_weights=torch.stack(weights, 1), mode="sum")
        return found[None] + self.bias

    def look_up_pyramid(self, pyramid: list[Tensor], points: Tensor) -> Tensor:
        """Equation (2) as printed, unbaked: twelve look-ups, then the first layer. [B, P, 3] -> [B, P, hidden]."""
        at = torch.stack([points[..., :2], points[..., 1:], points[..., ::2]], 1).flatten(0, 1)
        total = self.bias
        for fold, scale in zip(self.fold, pyramid, strict=True):
            flat = scale.reshape(-1, scale.shape[1] // 3, *scale.shape[2:])
            found = F.grid_sample(flat, at[:, None], align_corners=False, padding_mode="border")
            total = total + fold(found).squeeze(2).unflatten(0, (-1, 3)).sum(1).transpose(1, 2)
        return total

    def ray_points(self, depth: Tensor, pose: Pose) -> Tensor:
        """Samples of orthographic rays through the face box, near the surface: [B, samples * n * n, 3], target."""
        n = self.rays
        # Sizes are spelled so that exporters keep the batch open (no len()), and TensorRT for RTX builds it.
        xy = box_grid(self.middle, self.extent, n).expand(depth.shape[0], -1, -1, -1)
        z = F.grid_sample(depth, xy, align_corners=False, padding_mode="border")[:, 0]
        # one fixed-point step: the depth of the place that this ray meets in the source
        met = pose.to_source(torch.cat([xy, z[..., None]], -1).flatten(1, 2))
        z_met = F.grid_sample(depth, met[:, None, :, :2], align_corners=False, padding_mode="border")[:, 0, 0]
        z = z + ((z_met - met[..., 2]) / pose.rotation[:, 2, 2, None]).unflatten(1, (n, n))
        steps = torch.linspace(-self.band, self.band, self.samples, device=depth.device)
        z = z[:, None] + steps[:, None, None]
        return torch.cat([xy[:, None].expand(-1, self.samples, -1, -1, -1), z[..., None]], -1).flatten(1, 3)

    def forward(
        self, planes: Tensor, depth: Tensor, pose: Pose, field: DeformationField, lattice: Tensor, anchor: Anchor
    ) -> Coarse:
        """Render the face box.

        Args:
            planes: baked, [B, 3, hidden, S, S], or one portrait's table [3 * S * S, hidden].
            depth: depth centres of the source, [B, 1, 32, 32].
            pose: source from target.
            field, lattice, anchor: the deformation of this frame.
        """
        batch, n = lattice.shape[0], self.rays
        points = pose.to_source(self.ray_points(depth, pose))
        if field.kind != "none":
            points = field.displace(points, lattice, anchor)
        look_up = self.look_up_table if planes.dim() == 2 else self.look_up
        told = self.decoder(look_up(planes, points)).unflatten(1, (self.samples, n * n)).float()
        density = F.softplus(told[..., 0]) * self.slab  # [B, S, n^2]
        behind = torch.exp(-(torch.cumsum(density, 1) - density))
        weight = (behind * (1 - torch.exp(-density)))[..., None]
        opacity = weight.sum(1)
        where = points.unflatten(1, (self.samples, n * n))
        expected = (weight * where).sum(1) / (opacity + 1e-4)

        def square(x: Tensor) -> Tensor:  # [B, n^2, C] -> [B, C, n, n]
            return x.transpose(1, 2).reshape(batch, -1, n, n)

        colour = square((weight * told[..., 1:4].contiguous().tanh()).sum(1) - (1 - opacity))
        return Coarse(
            colour,
            square((weight * told[..., 4:]).sum(1)),
            square(opacity),
            square(expected[..., :2]),
            square(expected[..., 2:]),
        )


def table_of(planes: Tensor) -> Tensor:
    """One portrait's planes [3, hidden, S, S] as rows [3 * S * S, hidden], a place's channels side by side."""
    return planes.permute(0, 2, 3, 1).reshape(-1, planes.shape[1]).contiguous()
