"""What a family of recipes is made of: the model's sizes, the data, and each stage's recipe."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.s3dnerf.config import S3DConfig
from tools.training.audio_stage import AudioRecipe
from tools.training.clips import BASIS_FILE, CODES_FILE
from tools.training.deform_stage import DeformRecipe
from tools.training.field_stage import FieldRecipe
from tools.training.perceptual_stage import PerceptualRecipe
from tools.training.render_recipe import RenderRecipe
from tools.training.sync_stage import SyncRecipe

FINISH_STEPS = 250
HELD_OUT_ONE_IN = 20  # videos, where no list says which


@dataclass(frozen=True, kw_only=True)
class Family:
    """One complete set of recipes. Folders lie in that of ``--data``; all but the first may be missing."""

    name: str  # what its recipes' names begin with
    config: S3DConfig
    credits: str  # of the data, for the checkpoint
    judge_credits: str  # of what the lip-sync judge learns from
    speech: str  # folder of the clips to learn from
    held_out: Callable[[Path], set[str]]  # that folder -> names of clips that are never trained on
    others: str | None = None  # folder of clips of other speakers, which are only measured on
    stills: str = "portraits"  # folder of faces without speech
    stills_held_out: frozenset[str] = frozenset()
    vgg: bool = False  # the perceptual term looks through VGG where that is at hand
    audio: AudioRecipe = AudioRecipe()
    deform: DeformRecipe = DeformRecipe()
    perceptual: PerceptualRecipe = PerceptualRecipe()
    sync: SyncRecipe = SyncRecipe()
    render: RenderRecipe = RenderRecipe()
    field: FieldRecipe = FieldRecipe()
    finish: RenderRecipe | None = None  # stage 5; None: as stage 3, for FINISH_STEPS

    @property
    def finishing(self) -> RenderRecipe:
        """Stage 5's recipe."""
        return self.finish or self.render.finishing(FINISH_STEPS)

    def recipe(self, stage: str) -> str:
        """What ``tools/train.py`` calls a stage."""
        return f"{self.name}_{stage}"


def hold_out_videos(folder: Path) -> set[str]:
    """Every 20th video of a folder, with all clips that were cut from it; which ones hangs on their names alone.

    ``NAME_3`` and ``NAME_3__001`` are of the video ``NAME``. Of few videos at least one is held out.
    """
    names = [path.stem for path in folder.glob("*.npz") if path.name not in (BASIS_FILE, CODES_FILE)]
    videos = {name: re.sub(r"(_+\d+)+$", "", name) for name in names}
    lots = {video: int(hashlib.sha256(video.encode()).hexdigest(), 16) for video in videos.values()}
    drawn = {video for video, lot in lots.items() if lot % HELD_OUT_ONE_IN == 0} or {*sorted(lots)[:1]}
    return {name for name, video in videos.items() if video in drawn}
