"""Stage 2: codes -> displacement lattice, supervised at landmarks.

At the target frame's points, laid on the source frame by the relative pose, the field must lead to the
source frame's points. Squared error: the median displacement is nothing, which L1 would settle for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.landmarks import EYE_LIDS, LIPS
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.geometry import Pose, anchor_of
from engine.s3dnerf.lip_motion import LipMotion
from tools.training.faces import FaceTrack, Pair, driven_still, frame_pair, mirror_track
from tools.training.loop import Batch, cosine, half

LIDS = np.array([point for eye in EYE_LIDS for point in eye[:2]])


@dataclass(frozen=True, kw_only=True)
class DeformRecipe:
    steps: int = 900
    batch: int = 24
    stills: float = 0.3  # share of rows that are driven stills
    rate: float = 1.5e-3
    seed: int = 0


class Points(nn.Module):
    """Weights of the landmark loss: lips and lids count most."""

    def __init__(self) -> None:
        super().__init__()
        self.weight: Tensor
        weight = torch.ones(478)
        weight[torch.from_numpy(LIPS)] = 60.0
        weight[torch.from_numpy(LIDS)] = 30.0
        self.register_buffer("weight", weight)

    def forward(self, error: Tensor, trusted: Tensor) -> Tensor:
        """Error [B, 478, 3] in eye distances -> loss."""
        squared = error[..., :2].pow(2).sum(-1) + 0.1 * error[..., 2].pow(2)
        return (squared * self.weight * trusted).mean()


def stack(pairs: list[Pair]) -> dict[str, Tensor]:
    """Pairs -> tensors [B, ...] of the same names."""
    names = ("source", "target", "drive", "rotation", "shift", "trusted")
    return {name: torch.from_numpy(np.stack([getattr(p, name) for p in pairs]).astype(np.float32)) for name in names}


def landmark_error(field: DeformationField, lattice: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Error of the deformed points and of undeformed ones, each [B, 478, 3] in eye distances."""
    anchor = anchor_of(batch["source"])
    laid = Pose(batch["rotation"], batch["shift"]).to_source(batch["target"])
    reached = field.displace(laid, lattice, anchor)
    unit = anchor.unit[:, None]
    return (reached - batch["source"]) / unit, (laid - batch["source"]) / unit


class DeformStage:
    """Stage 2 for ``loop.train``."""

    name = "deform"

    def __init__(
        self,
        config: S3DConfig,
        recipe: DeformRecipe,
        tracks: list[FaceTrack],
        stills: list[FaceTrack],
        motion: LipMotion,
        device: torch.device,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.steps, self.seed, self.recipe, self.motion = recipe.steps, recipe.seed, recipe, motion
        self.field, self.points = DeformationField(config).to(device), Points().to(device)
        self.optimiser = torch.optim.AdamW(self.field.parameters(), recipe.rate)
        self.silent = torch.zeros(recipe.batch, config.audio.tokens, config.audio.width, device=device)
        self._tracks = [(track, mirror_track(track, motion)) for track in tracks]
        self._stills = [(still, mirror_track(still, motion)) for still in stills]

    def draw(self, rng: np.random.Generator, step: int) -> Batch:
        """Pairs of frames of a clip, and driven stills; half of both in a mirror."""
        pairs = []
        for _ in range(self.recipe.batch):
            track = self._tracks[rng.integers(len(self._tracks))][rng.integers(2)]
            target, source = rng.integers(0, len(track), 2)
            if self._stills and rng.random() < self.recipe.stills:
                still = self._stills[rng.integers(len(self._stills))][rng.integers(2)]
                pairs.append(driven_still(still, track.codes[target], self.motion))
            else:
                pairs.append(frame_pair(track, int(target), int(source)))
        return stack(pairs)

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * cosine(step, self.steps, least=0.01)
        noisy = batch["drive"] + 0.1 * torch.randn_like(batch["drive"])
        with half(noisy.device):
            lattice = self.field(noisy, self.silent, None, anchor_of(batch["source"]))
        error, still = landmark_error(self.field, lattice.float(), batch)
        loss = self.points(error, batch["trusted"])
        self.optimiser.zero_grad()
        if loss.requires_grad:  # the ablation without a deformation has nothing to learn here
            (loss * 20).backward()
            nn.utils.clip_grad_norm_(self.field.parameters(), 5.0)
            self.optimiser.step()
        lips = (slice(None), torch.from_numpy(LIPS), slice(0, 2))
        return {"points": loss, "squared lip error / still": error[lips].pow(2).mean() / still[lips].pow(2).mean()}

    def state(self) -> dict[str, Any]:
        return dict(field=self.field.state_dict(), optimiser=self.optimiser.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        self.field.load_state_dict(state["field"])
        self.optimiser.load_state_dict(state["optimiser"])

    def show(self, path: Path) -> None:
        pass
