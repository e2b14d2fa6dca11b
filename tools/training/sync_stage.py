"""The lip-sync discriminator: trained on real clips before stage 3, then frozen (paper, section 4)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.landmarks import LIPS
from engine.s3dnerf.sync_discriminator import SyncDiscriminator, crop_lips, freeze, sync_loss, sync_triplet_loss
from tools.training.clips import Clip

BOX_MARGIN = 0.25  # of the lips' width, on each side


@dataclass(frozen=True, kw_only=True)
class SyncRecipe:
    minutes: float = 10.0
    clips: int = 8  # of a batch
    moments: int = 4  # of each clip, so that most negatives are the same voice at another time
    frames: int = 5  # T
    rate: float = 5e-4
    seed: int = 0


def lip_boxes(landmarks: Tensor) -> Tensor:
    """Boxes twice as wide as high around the lips: [B, 478, 3] -> [B, 4] (x0, y0, x1, y1) in crop units."""
    lips = landmarks[:, torch.from_numpy(LIPS), :2]
    centre = lips.mean(1)
    half = (lips[..., 0].amax(1) - lips[..., 0].amin(1)) * (0.5 + BOX_MARGIN)
    size = torch.stack([half, half / 2], 1)
    return torch.cat([centre - size, centre + size], 1)


def real_lips(clip: Clip, first: int, frames: int) -> Tensor:
    """Lip crops of ``frames`` frames from ``first`` on: [T, 3, 48, 96] in [-1, 1]."""
    images = np.stack([clip.frame(first + i) for i in range(frames)])
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return crop_lips(pictures, lip_boxes(torch.from_numpy(clip.landmarks[first : first + frames])))


def draw_moments(
    clips: list[Clip], driving: list[Tensor], recipe: SyncRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of lips [B, T, 3, 48, 96] and the sound at their middle [B, tokens, width]."""
    lips, sound = [], []
    for which in rng.integers(0, len(clips), recipe.clips):
        clip = clips[which]
        for first in rng.choice(len(clip) - recipe.frames + 1, recipe.moments, replace=False):
            lips.append(real_lips(clip, int(first), recipe.frames))
            sound.append(driving[which][first + recipe.frames // 2])
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (len(lips), 1, 3, 1, 1)).astype(np.float32))
    return (torch.stack(lips) * gain).clamp(-1, 1), torch.stack(sound)


def train_sync(recipe: SyncRecipe, clips: list[Clip], driving: list[Tensor], out: Path) -> SyncDiscriminator:
    """Train the judge until the recipe's minutes are over."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    judge = SyncDiscriminator(frames=recipe.frames, bands=driving[0].shape[-1])
    optimiser = torch.optim.AdamW(judge.parameters(), recipe.rate)
    begin, step = time.monotonic(), 0
    while time.monotonic() - begin < recipe.minutes * 60:
        lips, sound = draw_moments(clips, driving, recipe, rng)
        loss = sync_triplet_loss(judge, lips, sound)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"sync {step} {time.monotonic() - begin:.0f} s loss {loss:.4f}", flush=True)
    torch.save({"judge": judge.state_dict(), "frames": recipe.frames, "bands": driving[0].shape[-1]}, out)
    return freeze(judge)


def load_judge(path: Path) -> SyncDiscriminator:
    state = torch.load(path)
    judge = SyncDiscriminator(frames=state["frames"], bands=state["bands"])
    judge.load_state_dict(state["judge"])
    return freeze(judge)


def made_sync_loss(
    judge: SyncDiscriminator, fine: Tensor, centre: Tensor, extent: float, batch: dict[str, Tensor], frames: int
) -> Tensor:
    """Equation (8) over the rows that are T frames of a clip in a row.

    Args:
        judge: frozen.
        fine: painted mouth boxes [B, 3, M, M], B = portraits * T.
        centre, extent: of the boxes, crop units.
        batch: of ``render_stage.Rows``; its ``spoken`` [B] marks rows of clips.
        frames: T.
    """
    spoken = batch["spoken"].unflatten(0, (-1, frames))[:, 0] > 0
    if not spoken.any():
        return fine.new_zeros(())
    boxes = (lip_boxes(batch["target"]) - centre.repeat(1, 2)) / extent
    lips = crop_lips(fine.float(), boxes).unflatten(0, (-1, frames))
    sound = batch["driving"].unflatten(0, (-1, frames))[:, frames // 2]
    return sync_loss(judge, lips[spoken], sound[spoken])
