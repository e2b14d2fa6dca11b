"""Training loss (paper, equation 9): the terms, their weights, and what the compact recipe adds.

``L = L_pix + 0.01 L_perceptual + 1 L_adv + 0.5 L_sync + 0.001 L_deform``. The first checkpoint is trained
with the pixel term (L1 with gradients, weighted at the lips), the deformation term and landmarks
(``tools/training``); the other terms stand here with the paper's weights for recipes that use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Equation (9)."""

    pixel: float = 1.0
    perceptual: float = 0.01
    adversarial: float = 1.0
    sync: float = 0.5
    deform: float = 0.001


def pixel_loss(made: Tensor, real: Tensor) -> Tensor:
    """L_pix, mean squared error of pictures [B, 3, H, W]."""
    return F.mse_loss(made, real)


def deform_loss(lattice: Tensor) -> Tensor:
    """L_deform, mean squared displacement."""
    return lattice.pow(2).mean()


def generator_adversarial_loss(score: Tensor) -> Tensor:
    """Non-saturating loss of StyleGAN's generator; score is the discriminator's logit of made pictures."""
    return F.softplus(-score).mean()


def discriminator_adversarial_loss(real_score: Tensor, made_score: Tensor) -> Tensor:
    """Loss of StyleGAN's discriminator on logits of real and made pictures."""
    return (F.softplus(-real_score) + F.softplus(made_score)).mean()


def total_loss(terms: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Equation (9) over the terms that are given, by name.

    Raises:
        KeyError: a term that the equation does not have.
    """
    known = vars(weights)
    unknown = set(terms) - set(known)
    if unknown:
        raise KeyError(f"equation (9) has no term {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return torch.stack([known[name] * term for name, term in terms.items()]).sum()
