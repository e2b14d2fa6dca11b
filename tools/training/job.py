"""One run of a recipe: where its data and states lie, and what the command line changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from tools.sound_file import read_mono
from tools.training.audio_stage import AudioRecipe
from tools.training.clips import Clip, load_clips
from tools.training.compact import compact_family
from tools.training.deform_stage import DeformRecipe
from tools.training.family import Family
from tools.training.field_stage import FieldRecipe
from tools.training.loop import Run
from tools.training.perceptual_stage import PerceptualRecipe
from tools.training.render_recipe import RenderRecipe
from tools.training.sync_stage import SyncRecipe

CALIBRATION_CLIPS = 12  # of those held out, the first ones by name; report on the others
MEASURED_CLIPS = 24

Recipe = TypeVar("Recipe", AudioRecipe, DeformRecipe, PerceptualRecipe, SyncRecipe, RenderRecipe, FieldRecipe)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the command line asks of any stage."""

    data: Path  # prepared: the family's folders, and where they are there noise, rooms, digits
    out: Path  # where the stages leave their states
    family: Family = field(default_factory=compact_family)
    base: Path | None = None  # where stage 1, the judges and the basis lie, if not in ``out``
    begin: Path | None = None  # a checkpoint whose pictures' weights stage 3 begins with
    resume: bool = False
    steps: int | None = None  # instead of the recipe's
    seed: int | None = None
    stop_at: float | None = None  # time.monotonic()
    device: torch.device = torch.device("cpu")
    workers: int = 0  # processes that draw batches; none: a thread of the one that trains

    @property
    def given(self) -> Path:
        """Folder of what stages 2 and 3 take as given."""
        return self.base or self.out

    def run(self, name: str) -> Run:
        return Run(
            out=self.out / name,
            resume=self.resume,
            stop_at=self.stop_at,
            device=self.device,
            workers=self.workers,
        )

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with the command line's steps and seed."""
        steps = recipe.steps if self.steps is None else self.steps
        return replace(recipe, steps=steps, seed=recipe.seed if self.seed is None else self.seed)


def training_clips(job: Job) -> list[Clip]:
    folder = job.data / job.family.speech
    return load_clips(folder, leave_out=job.family.held_out(folder))


def training_stills(job: Job) -> list[Clip]:
    """Portraits; none where there is no folder of them."""
    folder = job.data / job.family.stills
    return load_clips(folder, leave_out=set(job.family.stills_held_out)) if folder.exists() else []


def held_out_clips(job: Job, limit: int | None = None) -> list[Clip]:
    """Clips that training never sees, the first ones by name."""
    folder = job.data / job.family.speech
    return load_clips(folder, only=set(sorted(job.family.held_out(folder))[:limit]))


def held_out_stills(job: Job) -> list[Clip]:
    folder = job.data / job.family.stills
    wanted = set(job.family.stills_held_out)
    at_hand = {path.stem for path in folder.glob("*.npz")} & wanted
    return load_clips(folder, only=at_hand) if at_hand else []


def other_clips(job: Job) -> list[Clip]:
    """Clips of other speakers than those learned from; none where they are not at hand."""
    folder = None if job.family.others is None else job.data / job.family.others
    return load_clips(folder) if folder is not None and folder.exists() else []


def calibration_clips(job: Job) -> list[Clip]:
    return held_out_clips(job, CALIBRATION_CLIPS)


def recordings(job: Job, folder: str, longest_s: float = 60) -> list[np.ndarray]:
    """Every sound file of a folder of the data, float32 16 kHz mono; none where there is no such folder."""
    paths = sorted((job.data / folder).iterdir()) if (job.data / folder).exists() else []
    return [read_mono(path)[: int(longest_s * 16_000)] for path in paths]


def read_state(path: Path, made_by: str) -> dict:
    """What a stage before left, on the CPU.

    Raises:
        FileNotFoundError: it did not; ``made_by`` is the recipe that does.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; run python -m tools.train {made_by} first")
    return torch.load(path, map_location="cpu")
