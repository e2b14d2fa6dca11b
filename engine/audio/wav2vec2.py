"""Wav2Vec2 (Baevski et al. 2020, arXiv:2006.11477), as much of it as gives features of speech.

Modules have the names of transformers' ``Wav2Vec2Model``, so that its weights fit; both are compared in tests.
It is our own because to import that one takes longer than all else at a server's start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from engine.s3dnerf.config import AudioConfig


class Wav2Vec2(nn.Module):
    """Feature encoder, projection and transformer, freshly initialised as the published ones were.

    Without dropout: small nets are kept from learning by heart in other ways (``log_mel.py``).
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Transformer(config)
        self.apply(_initialise)


class FeatureExtractor(nn.Module):
    """Sound [B, samples] -> features [B, C, T] by convolutions."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, place) for place in range(len(config.conv_dim)))

    def forward(self, sound: Tensor) -> Tensor:
        hidden = sound[:, None]
        for layer in self.conv_layers:
            hidden = layer(hidden)
        return hidden


class ConvLayer(nn.Module):
    """A convolution, its norm (over channels at each step; or, in the first layer alone, over time) and GELU."""

    def __init__(self, config: AudioConfig, place: int) -> None:
        super().__init__()
        before, after = (1, *config.conv_dim)[place], config.conv_dim[place]
        kernel, stride = config.conv_kernel[place], config.conv_stride[place]
        self.conv = nn.Conv1d(before, after, kernel, stride, bias=config.conv_bias)
        self.over_time = not config.layer_norm_features
        self.layer_norm: nn.Module | None = None
        if not self.over_time:
            self.layer_norm = nn.LayerNorm(after)
        elif place == 0:
            self.layer_norm = nn.GroupNorm(after, after)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.conv(hidden)
        if self.layer_norm is not None:
            hidden = (
                self.layer_norm(hidden) if self.over_time else self.layer_norm(hidden.transpose(1, 2)).transpose(1, 2)
            )
        return F.gelu(hidden)


class FeatureProjection(nn.Module):
    """Features [B, T, C] -> [B, T, hidden]."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1])
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.layer_norm(features))


class Transformer(nn.Module):
    """Context of [B, T, hidden]; norms stand before the blocks where the features are normed per step, else behind."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_first = config.layer_norm_features

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.pos_conv_embed(hidden)
        if not self.norm_first:
            hidden = self.layer_norm(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.layer_norm(hidden) if self.norm_first else hidden


class PositionalConv(nn.Module):
    """A grouped convolution over time that tells where each step is."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        kernel, width = config.position_kernel, config.hidden
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.position_groups)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.conv(hidden.transpose(1, 2))[..., : hidden.shape[1]]).transpose(1, 2)


class Block(nn.Module):
    """Attention and feed-forward, each beside what goes past it."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.attention = Attention(config.hidden, config.heads)
        self.layer_norm = nn.LayerNorm(config.hidden)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden)
        self.norm_first = config.layer_norm_features

    def forward(self, hidden: Tensor) -> Tensor:
        if self.norm_first:
            hidden = hidden + self.attention(self.layer_norm(hidden))
            return hidden + self.feed_forward(self.final_layer_norm(hidden))
        hidden = self.layer_norm(hidden + self.attention(hidden))
        return self.final_layer_norm(hidden + self.feed_forward(hidden))


class Attention(nn.Module):
    """Of all steps to all steps; written out, which is faster than fused over so short a window."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        split = (*hidden.shape[:2], self.heads, hidden.shape[2] // self.heads)
        query, key, value = (f(hidden).view(split).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        shares = (query @ key.transpose(2, 3) * split[-1] ** -0.5).softmax(-1)  # [B, heads, T, T]
        return self.out_proj((shares @ value).transpose(1, 2).reshape(hidden.shape))


class FeedForward(nn.Module):
    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden, config.feed_forward)
        self.output_dense = nn.Linear(config.feed_forward, config.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(hidden)))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Random weights; parts are initialised before what holds them, which has the last word."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif type(module) is nn.Conv1d:  # the positional one, a subclass by its weight norm, is left as torch made it
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, PositionalConv):
        nn.init.zeros_(module.conv.get_parameter("bias"))
    elif isinstance(module, FeatureProjection):
        reach = module.projection.in_features**-0.5
        nn.init.uniform_(module.projection.weight, -reach, reach)
        nn.init.uniform_(module.projection.bias, -reach, reach)
