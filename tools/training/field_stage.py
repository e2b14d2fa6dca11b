"""Stage 4: the deformation field once more, from landmarks alone, with what stage 3 made of portraits and sound.

Stage 3 sees ten frames a step, most of a few faces; a step here costs a fifth and sees as many faces as rows, above all
portraits whose lips stand open or show teeth and must shut. The pictures' networks stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.s3dnerf.geometry import anchor_of
from engine.s3dnerf.lip_motion import LipMotion, inner_gaps
from engine.s3dnerf.losses import deform_loss
from engine.s3dnerf.model import S3DNerf
from tools.training.correlation import CorrelationHead
from tools.training.deform_stage import Points, landmark_error, stack
from tools.training.faces import MOUTH_SHOWS, FaceTrack, Pair, driven_still, frame_pair, mirror_track
from tools.training.heard import Heard
from tools.training.loop import Batch, cosine, half
from tools.training.mirror import code_mirror
from tools.training.picture_losses import bend_loss

PORTRAITS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class FieldRecipe:
    steps: int = 1200
    batch: int = 32
    clips: int = 250  # from which portraits are taken, evenly spread; the sound is that of all
    stills: float = 0.6  # share of rows that are driven stills
    open_stills: float = 0.5  # share of these whose lips stand open by themselves
    heard: float = 0.25  # share of the clips' rows whose codes are those that stage 1 hears
    rate: float = 6e-4
    points_weight: float = 20.0
    smooth_weight: float = 60.0  # on squared differences of neighbouring lattice points
    correlation_weight: float = 20.0
    seed: int = 0


class Portrait(NamedTuple):
    """A face that rows begin from."""

    track: FaceTrack
    frame: int  # of the track
    clip: int  # place of the clip among the tracks; -1: a still
    aggregate: Tensor  # F_agg [N, D]


class FieldStage:
    """Training of the field for ``loop.train``.

    Args:
        model: as stage 3 left it.
        recipe: what and for how long.
        tracks, stills: of clips, at least one, and of portraits, perhaps none.
        heard: what stage 1 hears in each clip.
        motion: basis of the codes.
        device: where it learns.
    """

    name = "field"

    def __init__(
        self,
        model: S3DNerf,
        recipe: FieldRecipe,
        tracks: list[FaceTrack],
        stills: list[FaceTrack],
        heard: Heard,
        motion: LipMotion,
        device: torch.device,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.steps, self.seed, self.recipe = recipe.steps, recipe.seed, recipe
        self.model, self.device = model.to(device).eval().requires_grad_(False), device
        self._motion, self._heard, self._mirror = motion, heard, code_mirror(motion)
        self._tracks = [(track, mirror_track(track, motion)) for track in tracks]
        chosen = np.unique(np.linspace(0, len(tracks) - 1, min(len(tracks), recipe.clips)).astype(int))
        clips = [(one, len(one) // 2, int(clip)) for clip in chosen for one in self._tracks[clip]]
        self._clips = self._enrol(clips)
        self._stills = self._enrol([(one, 0, -1) for still in stills for one in (still, mirror_track(still, motion))])
        self._open = [one for one in self._stills if inner_gaps(one.track.points(0)).max() > MOUTH_SHOWS]
        self.field = model.field.requires_grad_(True).train()
        self.points = Points().to(device)
        self.correlation = CorrelationHead(model.config).to(device) if self.field.kind == "cross_modal" else None
        heads = [] if self.correlation is None else list(self.correlation.parameters())
        self.optimiser = torch.optim.AdamW([*self.field.parameters(), *heads], recipe.rate, betas=(0.9, 0.99))

    @torch.no_grad()
    def _enrol(self, faces: list[tuple[FaceTrack, int, int]]) -> list[Portrait]:
        made = []
        for first in range(0, len(faces), PORTRAITS_AT_ONCE):
            part = faces[first : first + PORTRAITS_AT_ONCE]
            pictures = np.stack([track.frame(index) for track, index, _ in part])
            images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().to(self.device) / 127.5 - 1
            with half(self.device):
                aggregates = self.model.slots(self.model.encoder(images)[0])
            made += [Portrait(*face, aggregate) for face, aggregate in zip(part, aggregates.float().cpu(), strict=True)]
        return made

    def draw(self, rng: np.random.Generator, step: int) -> Batch:
        """Pairs (``deform_stage.stack``) with ``driving`` [B, tokens, width] and ``aggregate`` [B, N, D]."""
        rows = [self._draw_row(rng) for _ in range(self.recipe.batch)]
        pairs, driving, aggregates = zip(*rows, strict=True)
        return stack(list(pairs)) | dict(driving=torch.stack(driving), aggregate=torch.stack(aggregates))

    def _draw_row(self, rng: np.random.Generator) -> tuple[Pair, Tensor, Tensor]:
        recipe = self.recipe
        if self._stills and rng.random() < recipe.stills:
            among = self._open if self._open and rng.random() < recipe.open_stills else self._stills
            portrait = among[int(rng.integers(len(among)))]
            clip = int(rng.integers(len(self._tracks)))
            track = self._tracks[clip][0]
            target = int(rng.integers(len(track)))
            pair = driven_still(portrait.track, track.codes[target], self._motion)
        else:
            portrait = self._clips[int(rng.integers(len(self._clips)))]
            clip, track = portrait.clip, portrait.track
            target = int(rng.integers(len(track)))
            pair = frame_pair(track, target, portrait.frame)
            if rng.random() < recipe.heard:
                told = self._heard.codes[clip][target]
                pair = pair.told(told @ self._mirror if track.mirrored else told)
        return pair, self._heard.driving[clip][target], portrait.aggregate

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * cosine(step, self.steps, warm_up=50, least=0.01)
        drive = batch["drive"] + 0.05 * torch.randn_like(batch["drive"])
        with half(drive.device):
            lattice = self.field(drive, batch["driving"], batch["aggregate"], anchor_of(batch["source"])).float()
        error, _ = landmark_error(self.field, lattice, batch)
        losses = {
            "points": self.points(error, batch["trusted"]) * recipe.points_weight,
            "smooth": bend_loss(lattice) * recipe.smooth_weight,
            "deform": deform_loss(lattice) * 1e-3,
        }
        if self.correlation is not None:
            with half(drive.device):
                miss = self.correlation(self.field, batch["aggregate"], batch)
            losses["correlation"] = miss.float() * recipe.correlation_weight
        total = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad()
        if total.requires_grad:  # the ablation without a deformation has nothing to learn here
            total.backward()
            nn.utils.clip_grad_norm_(self.field.parameters(), 1.0)
            self.optimiser.step()
        return losses

    def state(self) -> dict[str, Any]:
        state = dict(field=self.field.state_dict(), optimiser=self.optimiser.state_dict())
        return state | ({} if self.correlation is None else dict(correlation=self.correlation.state_dict()))

    def restore(self, state: dict[str, Any]) -> None:
        self.field.load_state_dict(state["field"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.correlation is not None:
            self.correlation.load_state_dict(state["correlation"])

    def show(self, path: Path) -> None:
        """There is nothing to look at."""
