"""The lip-sync discriminator: trained on real clips before stage 3, then frozen (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.s3dnerf.sync_discriminator import (
    SyncDiscriminator,
    crop_lips,
    freeze,
    lip_boxes,
    log_mel,
    sync_loss,
    sync_triplet_loss,
)
from tools.training.clips import Clip
from tools.training.loop import Batch, cosine, half
from tools.training.sync_rows import SyncRows


@dataclass(frozen=True, kw_only=True)
class SyncRecipe:
    steps: int = 4000
    clips: int = 8  # of a batch
    moments: int = 8  # of each clip: negatives are the same voice at other times, and other clips
    frames: int = 5  # T
    rate: float = 1e-3
    warm_up: int = 100  # steps
    seed: int = 0


class SyncStage:
    """Training of the judge for ``loop.train``.

    Args:
        recipe: what and for how long.
        clips: of speech, in sync.
        noises: recordings without speech, perhaps none.
        device: where it learns.
    """

    name = "sync"

    def __init__(
        self, recipe: SyncRecipe, clips: list[Clip], noises: list[np.ndarray], device: torch.device | None = None
    ) -> None:
        self.recipe, self.steps, self.seed = recipe, recipe.steps, recipe.seed
        torch.manual_seed(recipe.seed)
        self.judge = SyncDiscriminator(frames=recipe.frames).to(device or torch.device("cpu"))
        self.optimiser = torch.optim.AdamW(self.judge.parameters(), recipe.rate, weight_decay=0.05)
        self.draw = SyncRows(clips, noises, recipe.clips, recipe.moments, recipe.frames).draw

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate * cosine(step, self.steps, self.recipe.warm_up, least=0.01)
        with half(batch["lips"].device):
            e_l, e_a = self.judge.embed_grey(batch["lips"]), self.judge.embed_sound(batch["mel"])
        of_clips = (-1, self.recipe.moments)
        loss = sync_triplet_loss(e_l, e_a)  # among all
        loss = loss + sync_triplet_loss(e_l.unflatten(0, of_clips), e_a.unflatten(0, of_clips))  # in a clip
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.judge.parameters(), 1.0)
        self.optimiser.step()
        return dict(triplet=loss.detach(), first=share_first(e_l, e_a, self.recipe.moments))

    def state(self) -> dict[str, Any]:
        return dict(judge=self.judge.state_dict(), frames=self.recipe.frames, optimiser=self.optimiser.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        self.judge.load_state_dict(state["judge"])
        self.optimiser.load_state_dict(state["optimiser"])

    def show(self, path: Path) -> None:
        """There is nothing to look at; ``tools/sync_figure.py`` measures it."""


def share_first(e_l: Tensor, e_a: Tensor, moments: int) -> Tensor:
    """Share of lips whose own sound scores best among a clip's moments."""
    score = e_l.detach().unflatten(0, (-1, moments)) @ e_a.detach().unflatten(0, (-1, moments)).transpose(1, 2)
    return (score.argmax(2) == torch.arange(moments, device=score.device)).float().mean()


def load_sync_state(path: Path) -> SyncDiscriminator:
    """What the stage left, frozen.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run the sync recipe first, as compact_sync")
    state = torch.load(path, map_location="cpu")
    judge = SyncDiscriminator(frames=state["frames"])
    judge.load_state_dict(state["judge"])
    return freeze(judge)


def made_sync_loss(
    judge: SyncDiscriminator, fine: Tensor, centre: Tensor, extent: float, batch: dict[str, Tensor]
) -> Tensor:
    """Equation (8) over made mouths that are T frames of a clip in a row, T = ``judge.frames``.

    Args:
        judge: frozen.
        fine: painted mouth boxes [S * T, 3, M, M], a clip's T frames one behind the other.
        centre: of the boxes, [S * T, 2], crop units.
        extent: half their side, crop units.
        batch: ``target``, landmarks [S * T, 478, 3] of the true frames, and either ``mel`` [S, 80, 32] or
            ``sound`` [S, 5120], the 320 ms about the middle frame of each clip's T (``sync_rows.sound_around``).
    """
    boxes = (lip_boxes(batch["target"], judge.frames) - centre.repeat(1, 2)) / extent
    lips = crop_lips(fine.float(), boxes).unflatten(0, (-1, judge.frames))
    mel = batch["mel"] if "mel" in batch else log_mel(batch["sound"])
    return sync_loss(judge, lips, mel)
