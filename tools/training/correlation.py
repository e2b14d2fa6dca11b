"""Supervision of ``F_cm`` of its own: it must tell where the face moves with the sound, and how.

Without it the deformation field learns from the lip-motion codes alone and the correlation of slots and
speech (paper, equation 3) stays what it was by chance. The head is thrown away after training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.landmarks import LIPS
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.cross_attention import heat_map
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.geometry import Pose, anchor_of

LIP_WEIGHT = 8.0
HEAT_OF_MOTION = 10.0  # heat that a movement of one eye distance is worth
HEAT_WEIGHT = 0.3  # on squared misses of the heat, ten times as large as those of the movement


class CorrelationHead(nn.Module):
    """``F_cm`` -> movement of the place it belongs to, in eye distances."""

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        self.tell = nn.Linear(config.slot_width, 2)
        self.weight: Tensor
        weight = torch.ones(478)
        weight[torch.from_numpy(LIPS)] = LIP_WEIGHT
        self.register_buffer("weight", weight / weight.mean(), persistent=False)

    def forward(self, field: DeformationField, aggregate: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Squared miss of the told movement and of the heat map at the landmarks.

        Args:
            field: its ``attend`` makes ``F_cm``.
            aggregate: F_agg of each row's portrait [B, N, D].
            batch: ``driving``, ``source``, ``target``, ``rotation``, ``shift`` and ``trusted`` of ``Rows``.
        """
        correlation = field.attend(aggregate, batch["driving"])
        source = batch["source"]
        unit = anchor_of(source).unit[:, None]
        laid = Pose(batch["rotation"], batch["shift"]).to_source(batch["target"])
        moved = ((laid - source) / unit)[..., :2]
        told = _look_up(self.tell(correlation), source)
        heat = _look_up(heat_map(correlation).flatten(1)[..., None], source)[..., 0]
        cold = heat - HEAT_OF_MOTION * moved.norm(dim=-1)
        miss = (told - moved).pow(2).sum(-1) + HEAT_WEIGHT * cold.pow(2)
        return (miss * self.weight * batch["trusted"]).mean()


def _look_up(places: Tensor, points: Tensor) -> Tensor:
    """Values of the places [B, Hs * Ws, D] at points [B, P, 3] of the crop -> [B, P, D]."""
    side = int(places.shape[1] ** 0.5)
    maps = places.float().transpose(1, 2).unflatten(2, (side, side))
    found = F.grid_sample(maps, points[:, None, :, :2], align_corners=False, padding_mode="border")
    return found[:, :, 0].transpose(1, 2)
