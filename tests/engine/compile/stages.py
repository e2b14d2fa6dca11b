"""Small stages to compile: what a backend does with them is seen in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Two(nn.Module):
    """Two inputs, two outputs, a matrix product and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(4, 3), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, vector: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        moved = self.linear(vector)  # [B, 3]
        return moved, self.conv(image) + moved.mean(1)[:, None, None, None]


class RowByRow(nn.Module):
    """Takes a batch without complaint, and looks at its first row alone."""

    def forward(self, vector: Tensor) -> Tensor:
        return vector - vector[:1]


class OneRow(nn.Module):
    """Says that there is one row."""

    def forward(self, vector: Tensor) -> Tensor:
        return vector.reshape(1, 2, 2).sum(-1)


def two() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return Two().eval(), (torch.randn(1, 4), torch.randn(1, 2, 8, 8))
