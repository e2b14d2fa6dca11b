"""Super-resolution (paper, section 3.3): ``I_fine = Supres(I_coarse, I_src_full)``.

The full-resolution portrait is warped by the rendered source coordinate, which keeps it sharp
everywhere; the network paints what no warp can bring, the inside of the mouth and the skin about it,
in a box around the mouth, and says where its paint covers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.deformation import CONTROLS
from engine.s3dnerf.film import Condition, FiLMBlock
from engine.s3dnerf.geometry import CROP_PX, Anchor, box_grid
from engine.s3dnerf.renderer import Coarse

GREENER = 0.05  # than red may green be, of a range of two, and as much more as the face is in the mean
FOLD = 2  # pixels each way that the network holds as channels of one place: small maps cost less than fine ones
EDGE_PX = 12  # the paint fades to nothing over so many pixels at the box's edge


class Paint(NamedTuple):
    colour: Tensor  # [B, 3, M, M] in [-1, 1], M = config.mouth_box
    cover: Tensor  # [B, 1, M, M] in [0, 1]


class ResidualBlock(nn.Module):
    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = FiLMBlock(width, width, condition), FiLMBlock(width, width, condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps [B, width, H, W] tuned by [B, condition] -> the same shape."""
        return x + self.second(self.first(x, condition), condition)


class SuperResolution(nn.Module):
    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        width, condition = config.superres_width, Condition.WIDTH
        self.box = config.mouth_box
        self.extent = config.mouth_box / CROP_PX
        self.face_extent = config.face_box / CROP_PX
        self.face_top = (config.face_box_top + config.face_box / 2) / CROP_PX * 2 - 1
        self.condition = Condition(config.codes, CONTROLS)
        inputs = 3 + config.features + 1 + config.encoder_widths[0] + 3 * FOLD**2 + 4
        self.enter = FiLMBlock(inputs, width, condition)
        self.body = nn.ModuleList(ResidualBlock(width, condition) for _ in range(config.superres_blocks))
        self.out = nn.Conv2d(width, 4 * FOLD**2, 3, 1, 1)
        nn.init.normal_(self.out.weight, std=1e-2)
        with torch.no_grad():
            assert self.out.bias is not None
            start = torch.tensor([0.0, 0.0, 0.0, -0.5])  # mostly trust the warp until told otherwise
            self.out.bias.copy_(start.repeat_interleave(FOLD**2))
        self.fade: Tensor
        ramp = ((torch.arange(self.box) + 0.5) / EDGE_PX).clamp(max=1)
        side = torch.minimum(ramp, ramp.flip(0))
        self.register_buffer("fade", (side[:, None] * side[None])[None, None], persistent=False)

    def forward(
        self, coarse: Coarse, shallow: Tensor, warped: Tensor, drive: Tensor, centre: Tensor, anchor: Anchor
    ) -> Paint:
        """Paint the mouth box.

        Args:
            coarse: the rendered face box.
            shallow: D_0 of the portrait, [B, C, 128, 128].
            warped: the warped portrait in the mouth box, [B, 3, M, M] in [-1, 1].
            drive: [B, 2 * codes + 3].
            centre: centre of the mouth box in the target, [B, 2].
            anchor: of the portrait.
        """
        grid = box_grid(centre, self.extent, self.box // FOLD)  # [B, M/2, M/2, 2]
        in_face = torch.cat([grid[..., :1], grid[..., 1:] - self.face_top], -1) / self.face_extent
        seen = torch.cat([coarse.colour, coarse.features, coarse.opacity, coarse.flow], 1)
        seen = F.grid_sample(seen, in_face, align_corners=False, padding_mode="border")
        flow = seen[:, -2:]
        source = F.grid_sample(shallow, flow.permute(0, 2, 3, 1), align_corners=False, padding_mode="border")
        unit = anchor.unit[:, :, None, None]
        from_mouth = (flow - anchor.mouth[:, :2, None, None]) / unit
        moved = (grid.permute(0, 3, 1, 2) - centre[:, :, None, None]) / unit - from_mouth
        tune = self.condition(drive)
        x = torch.cat([seen[:, :-2], source, F.pixel_unshuffle(warped, FOLD), from_mouth, moved * 4], 1)
        x = self.enter(x, tune)
        for block in self.body:
            x = block(x, tune)
        out = F.pixel_shuffle(self.out(x), FOLD).float()
        under = warped.float().clamp(-0.97, 0.97)
        change = torch.tanh(out[:, :3])
        colour = (change + under) / (1 + change * under)  # tanh(out + atanh(under)), without the logarithm
        # No mouth is greener than it is red, but for the light it stands in; where the paint is at a loss it was.
        light = (under[:, 1] - under[:, 0]).mean((1, 2), keepdim=True).clamp_min(0) + GREENER
        red, green, blue = colour.unbind(1)
        colour = torch.stack([red, torch.minimum(green, red + light), blue], 1)
        return Paint(colour, out[:, 3:].sigmoid() * self.fade)
