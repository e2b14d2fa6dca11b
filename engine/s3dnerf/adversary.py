"""The adversary (L_adv of equation 9): a StyleGAN-like discriminator of the mouth box.

Residual blocks that halve the picture, equalised learning rates, the minibatch's standard deviation as a last
channel, logistic loss (``losses.py``) and a lazy gradient penalty. No norm layers: with equalised weights a
discriminator needs none, and they would let one picture of a batch be judged by the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.config import S3DConfig

SLOPE = 0.2  # of the leaky ReLU


class EqualConv(nn.Module):
    """A convolution whose weights are drawn from N(0, 1) and scaled when used, so that all layers learn alike."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / math.sqrt(inputs * kernel**2)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)


class EqualLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


class HalvingBlock(nn.Module):
    """[B, inputs, H, W] -> [B, outputs, H / 2, W / 2], with a short cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3, 2)
        self.short = EqualConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky(self.second(leaky(self.first(x))))
        return (y + self.short(F.avg_pool2d(x, 2, ceil_mode=True))) / math.sqrt(2)


def spread_of_batch(x: Tensor) -> Tensor:
    """One more channel: the mean standard deviation over the batch; [B, C, H, W] -> [B, C + 1, H, W].

    A generator that makes all pictures alike is found out by it.
    """
    spread = (x.float().var(0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, spread.to(x.dtype).expand(len(x), 1, *x.shape[2:])], 1)


class Adversary(nn.Module):
    """Is this painted mouth box a photograph?

    Args:
        size: side of the mouth box in pixels, even and at least 16.
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of that.
    """

    def __init__(self, size: int = S3DConfig().mouth_box, widths: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        if size < 16 or size % 2:
            raise ValueError(f"a mouth box of {size} px cannot be judged; take an even size from 16 on")
        self.size = size
        # All pixels at half the size: as sharp an eye as a layer at full size, for a quarter of the time.
        self.enter = EqualConv(3 * 4, widths[0], 3)
        self.blocks = nn.ModuleList(HalvingBlock(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))
        self.last = EqualConv(widths[-1] + 1, widths[-1], 3)
        side = math.ceil(size / 2 ** len(widths))
        self.hidden = EqualLinear(widths[-1] * side**2, widths[-1])
        self.told = EqualLinear(widths[-1], 1)

    def features(self, picture: Tensor) -> list[Tensor]:
        """Maps at 1/2, 1/4, 1/8 and 1/16 of the size, for a feature-matching loss.

        Args:
            picture: [B, 3, size, size] in [-1, 1].
        """
        if picture.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"the adversary judges [B, 3, {self.size}, {self.size}], not {list(picture.shape)}")
        maps = [leaky(self.enter(F.pixel_unshuffle(picture, 2)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def judge(self, maps: list[Tensor]) -> Tensor:
        """What ``features`` gave -> logits float32 [B]; above nothing: a photograph."""
        x = leaky(self.last(spread_of_batch(maps[-1])))
        return self.told(leaky(self.hidden(x.flatten(1)))).float()[:, 0]

    def forward(self, picture: Tensor) -> Tensor:
        """[B, 3, size, size] in [-1, 1] -> logits float32 [B]."""
        return self.judge(self.features(picture))


def r1_penalty(adversary: Adversary, real: Tensor) -> Tensor:
    """Half the squared gradient of the logit at real pictures, meaned over the batch (Mescheder et al. 2018).

    In float32, whatever autocast says. Lazy: every k-th step only, times k * gamma (StyleGAN2: k = 16,
    gamma about 1 at this size).

    Args:
        adversary: that learns.
        real: [B, 3, size, size] in [-1, 1].
    """
    with torch.autocast(real.device.type, enabled=False):
        seen = real.detach().float().requires_grad_(True)
        (slope,) = torch.autograd.grad(adversary(seen).sum(), seen, create_graph=True)
    return slope.pow(2).sum((1, 2, 3)).mean() / 2


def feature_matching_loss(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean L1 distance of the adversary's maps of made and of real pictures; real ones are the fixed side."""
    return torch.stack([F.l1_loss(m.float(), r.detach().float()) for m, r in zip(made, real, strict=True)]).mean()
