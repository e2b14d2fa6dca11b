"""The perceptual network: learns to read lips from clips and stills before stage 3, then is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.lip_reader import WIDTHS, LipReader, Told, lip_shape_loss
from tools.training.clips import Clip
from tools.training.loop import Batch, cosine, half
from tools.training.mouth_crops import cut_mouth, draw_mouth

REBUILT_FROM = (1, 2)  # scales from which the picture must be found again, so that they keep teeth


@dataclass(frozen=True, kw_only=True)
class PerceptualRecipe:
    steps: int = 1600
    pictures: int = 32  # of a batch
    stills: float = 0.5  # share of stills among them, where there are any
    rate: float = 2e-3
    warm_up: int = 60  # steps
    rebuild_weight: float = 0.1
    size: int = 112  # px, of S3DConfig.mouth_box
    seed: int = 0


class Rebuilder(nn.Module):
    """Finds the picture again in maps of the network; used in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tell = nn.ModuleList(nn.Conv2d(WIDTHS[scale], 3 * 4 ** (scale + 1), 1) for scale in REBUILT_FROM)

    def forward(self, told: Told, picture: Tensor) -> Tensor:
        """Mean L1 distance of the pictures found again from the picture [B, 3, size, size]."""
        losses = []
        for scale, tell in zip(REBUILT_FROM, self.tell, strict=True):
            again = F.pixel_shuffle(tell(told.features[scale]), 2 ** (scale + 1))
            losses.append(F.l1_loss(again.float(), picture))
        return torch.stack(losses).mean()


class PerceptualStage:
    """Training of the perceptual network for ``loop.train``.

    Args:
        recipe: what and for how long.
        clips: of speech, at least one.
        stills: portraits, perhaps none.
        device: where it learns.
    """

    name = "perceptual"

    def __init__(
        self, recipe: PerceptualRecipe, clips: list[Clip], stills: list[Clip], device: torch.device | None = None
    ) -> None:
        device = device or torch.device("cpu")
        print("perceptual: VGG's weights are not used; this network of ours takes its place", flush=True)
        self.recipe, self.steps, self.seed = recipe, recipe.steps, recipe.seed
        self._clips, self._stills = clips, stills
        torch.manual_seed(recipe.seed)
        self.network = LipReader(recipe.size).to(device)
        self.rebuilder = Rebuilder().to(device)
        weights = [*self.network.parameters(), *self.rebuilder.parameters()]
        self.optimiser = torch.optim.AdamW(weights, recipe.rate, weight_decay=0.02)

    def draw(self, rng: np.random.Generator, step: int) -> Batch:
        """``picture`` [B, 3, size, size] and ``points`` [B, 40, 2]."""
        crops = []
        for _ in range(self.recipe.pictures):
            kind = self._stills if self._stills and rng.random() < self.recipe.stills else self._clips
            crops.append(draw_mouth(kind[int(rng.integers(len(kind)))], self.recipe.size, rng))
        pictures, points = zip(*crops, strict=True)
        return dict(picture=torch.from_numpy(np.stack(pictures)), points=torch.from_numpy(np.stack(points)))

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * cosine(step, self.steps, self.recipe.warm_up, least=0.01)
        with half(batch["picture"].device):
            told = self.network(batch["picture"])
            rebuilt = self.rebuilder(told, batch["picture"])
        points = lip_shape_loss(told.points, batch["points"])
        self.optimiser.zero_grad()
        (points * 10 + rebuilt * self.recipe.rebuild_weight).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        away_px = (told.points.detach() - batch["points"]).norm(dim=-1).mean() * self.recipe.size / 2
        return dict(away_px=away_px, rebuilt=rebuilt.detach())

    def state(self) -> dict[str, Any]:
        return dict(
            network=self.network.state_dict(),
            size=self.recipe.size,
            rebuilder=self.rebuilder.state_dict(),
            optimiser=self.optimiser.state_dict(),
        )

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.rebuilder.load_state_dict(state["rebuilder"])
        self.optimiser.load_state_dict(state["optimiser"])

    def show(self, path: Path) -> None:
        """There is nothing to look at; ``measure_reader`` says how well it reads."""


def load_lip_reader(path: Path) -> LipReader:
    """What the stage left, frozen.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run the perceptual recipe first, as compact_perceptual")
    state = torch.load(path, map_location="cpu")
    network = LipReader(state["size"])
    network.load_state_dict(state["network"])
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def measure_reader(network: LipReader, clips: list[Clip], every: int = 5) -> dict[str, float]:
    """Mean distance of the told lip points from the landmarks on unchanged boxes.

    Returns:
        ``away_px`` as told and ``shape_px`` after taking out the centroid, px of the 256 px crop.
    """
    crops = [
        cut_mouth(clip.frame(i), clip.landmarks[i], network.size) for clip in clips for i in range(0, len(clip), every)
    ]
    wanted = torch.from_numpy(np.stack([crop.points for crop in crops]))
    pictures = torch.from_numpy(np.stack([crop.picture for crop in crops])).split(32)
    told = torch.cat([network(part).points for part in pictures])
    shape = (told - told.mean(1, keepdim=True)) - (wanted - wanted.mean(1, keepdim=True))
    to_px = network.size / 2
    return dict(
        away_px=float((told - wanted).norm(dim=-1).mean() * to_px), shape_px=float(shape.norm(dim=-1).mean() * to_px)
    )
