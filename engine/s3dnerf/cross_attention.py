"""Multi-head cross-attention between slots and speech (paper, equation 3): ``F_cm``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig


class CrossAttention(nn.Module):
    """``F_cm = Softmax[F_agg W_Q (a W_K)^T / sqrt(d)] a W_V``: which part of the face the sound concerns.

    Beside the sound's tokens stands one that says nothing (its value is zero): places that the sound does not concern
    look there. Among the tokens alone each place would have to take some mix of them, and all mixes are alike.
    """

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        width, audio = config.slot_width, config.audio.width
        self.heads = config.attention_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(audio, width, bias=False)
        self.value = nn.Linear(audio, width, bias=False)
        self.norm_driving = nn.LayerNorm(audio)
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))  # its key
        self.moment = nn.Parameter(torch.randn(1, config.audio.tokens, audio) * 0.5)  # when in the window a token is

    def forward(self, aggregate: Tensor, driving: Tensor) -> Tensor:
        """F_agg [B, N, Dslot] as query, a_dri [B, tokens, Daudio] as key and value -> F_cm [B, N, Dslot]."""
        driving = self.norm_driving(driving) + self.moment
        value = self.value(driving)
        key = torch.cat([self.key(driving), self.nothing.expand(value.shape[0], -1, -1)], 1)
        value = F.pad(value, (0, 0, 0, 1))
        query, key, value = (
            x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (self.query(aggregate), key, value)
        )
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def heat_map(correlation: Tensor) -> Tensor:
    """F_cm [B, Hs * Ws, D] averaged over its channels -> [B, Hs, Ws]: where speech matters on the crop."""
    side = int(correlation.shape[1] ** 0.5)
    return correlation.mean(-1).unflatten(1, (side, side))
