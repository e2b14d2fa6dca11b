"""A convolution block that a vector tunes: feature-wise linear modulation (Perez et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FiLMBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, condition: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.GroupNorm(8, outputs)
        self.film = nn.Linear(condition, 2 * outputs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps [B, C, H, W] tuned by [B, condition] -> [B, outputs, H / stride, W / stride]."""
        gain, lift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return F.silu(self.norm(self.conv(x)) * (1 + gain) + lift)


class Condition(nn.Module):
    """Lip-motion codes (wanted and the portrait's own) and face controls -> the tuning vector."""

    WIDTH = 128

    def __init__(self, codes: int, controls: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * codes + controls, self.WIDTH), nn.SiLU(), nn.Linear(self.WIDTH, self.WIDTH), nn.SiLU()
        )

    def forward(self, drive: Tensor) -> Tensor:
        """[B, 2 * codes + controls] -> [B, 128]."""
        return self.net(drive)
