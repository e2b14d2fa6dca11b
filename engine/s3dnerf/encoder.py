"""Hierarchical facial appearance encoder (paper, section 1): portrait -> multi-scale tri-planes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU())


class AppearanceEncoder(nn.Module):
    """``D_i = Down_i(D_{i-1})`` and equation (1): ``F_3 = D_3``, ``F_i = Conv1x1([Up(F_{i+1}), D_i])``."""

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        widths, planes = config.encoder_widths, 3 * config.plane_channels
        self.down = nn.ModuleList(
            nn.Sequential(conv_block(i, o, 2), conv_block(o, o)) for i, o in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.top = nn.Conv2d(widths[-1], planes, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(planes + width, planes, 1) for width in widths[:-1])

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Portrait float32 [B, 3, 256, 256] in [-1, 1].

        Returns:
            the pyramid F_0..F_3, each [B, 3 * C, 128 / 2^i, 128 / 2^i] (planes xy, yz, xz one behind the
            other), and D_0 [B, widths[0], 128, 128], which super-resolution looks up again.
        """
        maps = []
        x = image
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        pyramid = [self.top(maps[-1])]
        for lateral, below in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            up = F.interpolate(pyramid[0], size=below.shape[-2:], mode="bilinear")
            pyramid.insert(0, lateral(torch.cat([up, below], 1)))
        return pyramid, maps[0]
