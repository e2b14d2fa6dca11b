"""VGG16's features for the perceptual term, where torchvision and its ImageNet weights are at hand."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512)  # of VGG16's convolutions; 0: halve the picture
TOLD_AFTER = (1, 4, 8, 12)  # places there whose maps are compared: relu1_2, relu2_2, relu3_3, relu4_3
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


class VggFeatures(nn.Module):
    """VGG16 up to relu4_3; ``layers`` has torchvision's places, so that its weights fit."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        layers: list[nn.Module] = []
        inputs = 3
        self._told: set[int] = set()
        for place, width in enumerate(WIDTHS):
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
            if place in TOLD_AFTER:
                self._told.add(len(layers) - 1)
        self.layers = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)

    def features(self, picture: Tensor) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1] -> maps at 1, 1/2, 1/4 and 1/8 of the size."""
        maps, x = [], ((picture + 1) / 2 - self.mean) / self.spread
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in self._told:
                maps.append(x)
        return maps


@cache
def load_vgg() -> VggFeatures | None:
    """VGG16 with ImageNet's weights, frozen; None where torchvision or the weights cannot be had."""
    try:
        from torchvision.models import VGG16_Weights

        weights = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
    except (ImportError, OSError, RuntimeError) as error:  # no package, no network, a package for another torch
        print(f"perceptual: VGG's weights cannot be had ({error})", flush=True)
        return None
    network = VggFeatures()
    wanted = network.layers.state_dict()
    network.layers.load_state_dict({name: weights[f"features.{name}"] for name in wanted})
    return network.eval().requires_grad_(False)
