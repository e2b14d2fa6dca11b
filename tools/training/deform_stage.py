"""Stage 2: codes -> displacement lattice, supervised at landmarks.

At the target frame's points, laid on the source frame by the relative pose, the field must lead to the
source frame's points. Squared error: the median displacement is nothing, which L1 would settle for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.landmarks import EYE_LIDS, LIPS
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.geometry import Pose, anchor_of
from engine.s3dnerf.lip_motion import LipMotion
from tools.training.faces import FaceTrack, Pair, driven_still, frame_pair

LIDS = np.array([point for eye in EYE_LIDS for point in eye[:2]])


@dataclass(frozen=True, kw_only=True)
class DeformRecipe:
    minutes: float = 6.0
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


def draw_pairs(
    tracks: list[FaceTrack], stills: list[FaceTrack], motion: LipMotion, recipe: DeformRecipe, rng: np.random.Generator
) -> list[Pair]:
    pairs = []
    for _ in range(recipe.batch):
        track = tracks[rng.integers(len(tracks))]
        target, source = rng.integers(0, len(track.clip), 2)
        if stills and rng.random() < recipe.stills:
            pairs.append(driven_still(stills[rng.integers(len(stills))], track.codes[target], motion))
        else:
            pairs.append(frame_pair(track, int(target), int(source)))
    return pairs


def train_deform(
    config: S3DConfig,
    recipe: DeformRecipe,
    tracks: list[FaceTrack],
    stills: list[FaceTrack],
    motion: LipMotion,
    out: Path,
) -> DeformationField:
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    field, points = DeformationField(config), Points()
    optimiser = torch.optim.AdamW(field.parameters(), recipe.rate)
    silent = torch.zeros(recipe.batch, config.audio.tokens, config.audio.width)
    begin, step = time.monotonic(), 0
    ratios: list[float] = []
    while (spent := time.monotonic() - begin) < recipe.minutes * 60:
        for group in optimiser.param_groups:
            group["lr"] = float(recipe.rate * (0.5 + 0.5 * np.cos(np.pi * spent / (recipe.minutes * 60))) + 1e-5)
        batch = stack(draw_pairs(tracks, stills, motion, recipe, rng))
        noisy = batch["drive"] + 0.1 * torch.randn_like(batch["drive"])
        with torch.autocast("cpu", torch.bfloat16):
            lattice = field(noisy, silent, None, anchor_of(batch["source"]))
        error, still = landmark_error(field, lattice.float(), batch)
        loss = points(error, batch["trusted"])
        optimiser.zero_grad()
        (loss * 20).backward()
        nn.utils.clip_grad_norm_(field.parameters(), 5.0)
        optimiser.step()
        step += 1
        ratios.append((error[:, LIPS, :2].pow(2).mean() / still[:, LIPS, :2].pow(2).mean()).item())
        if step % 50 == 0:
            print(f"deform {step} {spent:.0f} s squared lip error / still {np.mean(ratios[-50:]):.3f}", flush=True)
    torch.save({"field": field.state_dict(), "step": step}, out)
    return field
