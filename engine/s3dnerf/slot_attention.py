"""Slot attention over all scales (Locatello et al. 2020; paper, section 2): pyramid -> ``F_agg``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig


class SlotAttention(nn.Module):
    """Gathers the four scales into slots and hands each place the mix of slots that competed for it.

    The slots start from learned vectors, not from random ones, so that enrolment is deterministic; these are
    orthogonal, and each place's own features are added to its mix, or all places end up with the same one.
    """

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        inputs, width = 4 * 3 * config.plane_channels, config.slot_width
        self.grid, self.iterations, self.scale = config.slot_grid, config.slot_iterations, width**-0.5
        self.start = nn.Parameter(nn.init.orthogonal_(torch.empty(config.slots, width))[None])
        self.place = nn.Parameter(torch.randn(1, config.slot_grid**2, inputs) * 0.5)
        self.norm_maps, self.norm_inputs = nn.LayerNorm(inputs), nn.LayerNorm(inputs)
        self.norm_slots, self.norm_mlp, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(inputs, width, bias=False)
        self.value = nn.Linear(inputs, width, bias=False)
        self.update = nn.GRUCell(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.own = nn.Linear(inputs, width)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """F_0..F_3 [B, 3C, H_i, W_i] -> F_agg [B, Hs * Ws, Dslot]."""
        size = (self.grid, self.grid)
        maps = torch.cat([F.adaptive_avg_pool2d(f, size) for f in pyramid], 1)  # the smallest scale is Hs already
        inputs = self.norm_inputs(self.norm_maps(maps.flatten(2).transpose(1, 2)) + self.place)  # [B, N, 12C]
        key, value = self.key(inputs), self.value(inputs)
        slots = self.start.expand(len(inputs), -1, -1)
        share = torch.empty(0)
        for _ in range(self.iterations):
            logits = key @ self.query(self.norm_slots(slots)).transpose(1, 2) * self.scale
            share = logits.softmax(-1)  # [B, N, slots]: slots compete for places
            weight = share / (share.sum(1, keepdim=True) + 1e-6)
            seen = weight.transpose(1, 2) @ value
            slots = self.update(seen.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(self.norm_mlp(slots))
        return self.norm_out(share @ slots + self.own(inputs))
