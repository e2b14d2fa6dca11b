"""Lip-sync discriminator (paper, section 4): do these lips and this sound belong together?

Trained first on real clips, then frozen; the generator is rewarded for lips that it finds in sync.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.encoder import conv_block

MARGIN = 0.5
LIP_HEIGHT, LIP_WIDTH = 48, 96  # px of a lip crop


class SyncDiscriminator(nn.Module):
    """Embeds T lip crops and the sound of the same time into one space.

    Args:
        frames: T, lip crops of one person in a row.
        bands: channels of the sound features.
        width: of the embedding.
    """

    def __init__(self, frames: int = 5, bands: int = 128, width: int = 128) -> None:
        super().__init__()
        self.visual = nn.Sequential(
            conv_block(3 * frames, 32, 2),
            conv_block(32, 64, 2),
            conv_block(64, 128, 2),
            conv_block(128, 128, 2),
            nn.Flatten(),
            nn.Linear(128 * (LIP_HEIGHT // 16) * (LIP_WIDTH // 16), width),
        )
        self.sound = nn.Sequential(
            nn.Conv1d(bands, 128, 3, 1, 1),
            nn.SiLU(),
            nn.Conv1d(128, 128, 3, 2, 1),
            nn.SiLU(),
            nn.AdaptiveAvgPool1d(4),
            nn.Flatten(),
            nn.Linear(128 * 4, width),
        )

    def embed_lips(self, lips: Tensor) -> Tensor:
        """[B, T, 3, 48, 96] in [-1, 1] -> e_l [B, width], of length 1."""
        return F.normalize(self.visual(lips.flatten(1, 2)), dim=1)

    def embed_sound(self, features: Tensor) -> Tensor:
        """Features of the same time [B, steps, bands] -> e_a [B, width], of length 1."""
        return F.normalize(self.sound(features.transpose(1, 2)), dim=1)

    def forward(self, lips: Tensor, features: Tensor) -> Tensor:
        """Score (6), the cosine of the two embeddings: [B] in [-1, 1]."""
        return (self.embed_lips(lips) * self.embed_sound(features)).sum(1)


def sync_triplet_loss(discriminator: SyncDiscriminator, lips: Tensor, sound: Tensor) -> Tensor:
    """Equation (7), both ways, in the sense of the paper's text: pairs in sync must score higher.

    Row i of the batch goes with itself; each row's negative is the row before. The paper prints the two
    cosines with the opposite signs, which would reward being out of sync.
    """
    e_l, e_a = discriminator.embed_lips(lips), discriminator.embed_sound(sound)
    together = (e_l * e_a).sum(1)
    other_sound = (e_l * e_a.roll(1, 0)).sum(1)
    other_lips = (e_l.roll(1, 0) * e_a).sum(1)
    return (F.relu(MARGIN - together + other_sound) + F.relu(MARGIN - together + other_lips)).mean()


def sync_loss(discriminator: SyncDiscriminator, lips: Tensor, sound: Tensor) -> Tensor:
    """Equation (8) for the generator: ``1 - cos`` of generated lips and the true sound, averaged."""
    return (1 - discriminator(lips, sound)).mean()


def freeze(discriminator: SyncDiscriminator) -> SyncDiscriminator:
    """As the generator sees it: fixed, yet letting gradients through to the lips."""
    return discriminator.eval().requires_grad_(False)


def crop_lips(image: Tensor, boxes: Tensor) -> Tensor:
    """Cut lip crops with the ground truth's boxes.

    Args:
        image: [B, 3, H, W] in [-1, 1].
        boxes: [B, 4], (x0, y0, x1, y1) in [-1, 1] over the picture.

    Returns:
        [B, 3, 48, 96].
    """
    across = torch.linspace(0, 1, LIP_WIDTH, device=image.device)
    down = torch.linspace(0, 1, LIP_HEIGHT, device=image.device)
    x = boxes[:, 0, None] + (boxes[:, 2] - boxes[:, 0])[:, None] * across
    y = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * down
    grid = torch.stack([x[:, None].expand(-1, LIP_HEIGHT, -1), y[:, :, None].expand(-1, -1, LIP_WIDTH)], -1)
    return F.grid_sample(image, grid, align_corners=False, padding_mode="border")
