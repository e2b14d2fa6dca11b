"""Cross-modal facial deformation field (paper, equation 4): ``x~ = x + Deform(x, a_dri, F_cm)``.

The field is a lattice of displacements around the portrait's own mouth, in eye distances, made by a
U-Net once a frame and looked up at every sample. It is stored as 3 * Dz channels of a 2-D map and
blended along z with hat weights: 5-D samplers do not export.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.cross_attention import CrossAttention
from engine.s3dnerf.film import Condition, FiLMBlock
from engine.s3dnerf.geometry import Anchor, pixel_centres

CONTROLS = 3  # change of eye openness, the portrait's eye openness, change of brow height
PLACE_CHANNELS = 16
RANGE = 0.1  # eye distances for an output of 1
EDGE_CELLS = 6  # the displacement fades to nothing over so many lattice cells


class DeformationField(nn.Module):
    """U-Net over the lattice; every block is tuned by the drive, the bottleneck sees ``F_cm``.

    ``config.deformation`` switches the paper's ablations: ``no_correlation`` (U-Net without F_cm),
    ``concatenated`` (F_agg and mean a_dri side by side instead of attention), ``naive`` (a per-point
    network on x and mean a_dri), ``none`` (no deformation).
    """

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        width, condition = config.lattice_width, Condition.WIDTH
        self.kind, self.size, self.depths = config.deformation, config.lattice, config.lattice_depths
        self.extent, self.rise = config.lattice_half, config.lattice_rise
        self.condition = Condition(config.codes, CONTROLS)
        self.audio = nn.Linear(config.audio.width, condition)
        nn.init.zeros_(self.audio.weight)
        outputs = 3 * self.depths
        if self.kind == "none":
            return
        if self.kind == "naive":
            self.point = nn.Sequential(
                nn.Conv2d(2 + condition, 128, 1),
                nn.SiLU(),
                nn.Conv2d(128, 128, 1),
                nn.SiLU(),
                nn.Conv2d(128, outputs, 1),
            )
            return
        self.place = nn.Parameter(torch.randn(1, PLACE_CHANNELS, self.size, self.size) * 0.1)
        self.enter = FiLMBlock(PLACE_CHANNELS + 2, width, condition)
        self.down1 = FiLMBlock(width, 2 * width, condition, 2)
        self.down2 = FiLMBlock(2 * width, 3 * width, condition, 2)
        self.up1 = FiLMBlock(5 * width, 2 * width, condition)
        self.up0 = FiLMBlock(3 * width, width, condition)
        self.out = nn.Conv2d(width, outputs, 3, 1, 1)
        nn.init.normal_(self.out.weight, std=1e-3)
        if self.kind == "cross_modal":
            self.attend = CrossAttention(config)
            self.inject = nn.Conv2d(config.slot_width, 3 * width, 1)
        elif self.kind == "concatenated":
            self.inject = nn.Conv2d(config.slot_width + config.audio.width, 3 * width, 1)
        if hasattr(self, "inject"):
            nn.init.normal_(self.inject.weight, std=1e-3)
        self.register_buffer("fade", _edge_fade(self.size), persistent=False)

    def forward(self, drive: Tensor, driving: Tensor, aggregate: Tensor | None, anchor: Anchor) -> Tensor:
        """Make the lattice of one frame.

        Args:
            drive: [B, 2 * codes + 3], wanted codes, the portrait's own, controls.
            driving: a_dri [B, tokens, width].
            aggregate: F_agg [B, Hs * Ws, Dslot] of the portrait; None leaves F_cm out (stage 2 of training).
            anchor: of the portrait.

        Returns:
            [B, 3 * Dz, N, N], displacements (dx, dy, dz) of each depth level, in eye distances.
        """
        if self.kind == "none":
            return drive.new_zeros(drive.shape[0], 3 * self.depths, self.size, self.size)
        tune = self.condition(drive) + self.audio(driving.mean(1))
        axis = pixel_centres(self.size, drive.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None].expand(drive.shape[0], -1, -1, -1)
        if self.kind == "naive":
            wide = tune[:, :, None, None].expand(-1, -1, self.size, self.size)
            return self.point(torch.cat([place, wide], 1)) * RANGE * _edge_fade(self.size).to(place)
        top = self.enter(torch.cat([self.place.expand(drive.shape[0], -1, -1, -1), place], 1), tune)
        middle = self.down1(top, tune)
        bottom = self.down2(middle, tune)
        if aggregate is not None and self.kind != "no_correlation":
            bottom = bottom + self.inject(self._seen(aggregate, driving, anchor, bottom.shape[-1]))
        up = F.interpolate(bottom, size=middle.shape[-2:], mode="bilinear")
        up = self.up1(torch.cat([up, middle], 1), tune)
        up = F.interpolate(up, size=top.shape[-2:], mode="bilinear")
        return self.out(self.up0(torch.cat([up, top], 1), tune)) * RANGE * self.fade

    def _seen(self, aggregate: Tensor, driving: Tensor, anchor: Anchor, size: int) -> Tensor:
        """F_cm (or its ablation) at the lattice's coarsest points: [B, D, size, size]."""
        if self.kind == "cross_modal":
            seen = self.attend(aggregate, driving)
        else:
            mean = driving.mean(1, keepdim=True).expand(-1, aggregate.shape[1], -1)
            seen = torch.cat([aggregate, mean], -1)
        side = int(aggregate.shape[1] ** 0.5)
        maps = seen.transpose(1, 2).unflatten(2, (side, side))
        axis = pixel_centres(size, maps.device) * self.extent
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)[None]
        points = grid * anchor.unit[:, None, None] + self.centre(anchor)[:, None, None]
        return F.grid_sample(maps, points, align_corners=False, padding_mode="border")

    def untaught(self) -> list[nn.Module]:
        """The parts that need ``a_dri`` or ``F_agg``, which stage 2 of training does without."""
        names = ("audio", "attend", "inject")
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def centre(self, anchor: Anchor) -> Tensor:
        """Centre of the lattice, [B, 2]."""
        return torch.stack([anchor.mouth[:, 0], anchor.mouth[:, 1] - self.rise * anchor.unit[:, 0]], 1)

    def displace(self, points: Tensor, lattice: Tensor, anchor: Anchor) -> Tensor:
        """``x~ = x + dx`` at source-frame points [B, P, 3] -> [B, P, 3]."""
        at = (points[..., :2] - self.centre(anchor)[:, None]) / (anchor.unit[:, None] * self.extent)
        found = F.grid_sample(lattice, at[:, None], align_corners=False)[:, :, 0]  # [B, 3 Dz, P]
        level = (points[..., 2] - anchor.mouth[:, None, 2]) / anchor.unit + 0.5  # 0..1 over one eye distance of depth
        level = level.clamp(0, 1) * (self.depths - 1)
        moved = points.new_zeros(())
        for depth in range(self.depths):
            hat = (1 - (level - depth).abs()).clamp_min(0)
            moved = moved + found[:, 3 * depth : 3 * depth + 3] * hat[:, None]
        return points + moved.transpose(1, 2) * anchor.unit[:, None]


def _edge_fade(size: int) -> Tensor:
    ramp = ((torch.arange(size) + 0.5) / EDGE_CELLS).clamp(max=1)
    side = torch.minimum(ramp, ramp.flip(0))
    return (side[:, None] * side[None])[None, None]
