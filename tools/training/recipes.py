"""Recipes by name: every family's stages, and each family from nothing to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.training import judges, stages
from tools.training.compact import compact_family, compact_gpu_family
from tools.training.family import Family
from tools.training.job import Job
from tools.training.paper_hdtf import paper_hdtf

STAGES: dict[str, Callable[[Job], bool]] = {
    "audio": stages.train_audio,
    "deform": stages.train_deform,
    "sync": judges.train_sync,
    "perceptual": judges.train_perceptual,
    "render": stages.train_render,
    "plain": stages.train_plain,
    "field": stages.train_field,
    "finish": stages.train_finish,
    "pack": stages.pack,
    "unpack": stages.unpack,
}
FAMILIES = {"compact": compact_family, "compact_gpu": compact_gpu_family, "paper_hdtf": paper_hdtf}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    make_family: Callable[[], Family]
    stage: str | None  # None: all of them

    def run(self, job: Job) -> bool:
        """Whether the last step is done."""
        return train_all(job) if self.stage is None else STAGES[self.stage](job)

    def describe(self) -> str:
        told = train_all.__doc__ if self.stage is None else STAGES[self.stage].__doc__
        return (told or "").split("\n")[0].strip()


def train_all(job: Job) -> bool:
    """Every stage in order, each from where the one before left off, and the checkpoint."""
    return all(STAGES[stage](job) for stage in needed_stages(job.family))


def needed_stages(family: Family) -> list[str]:
    """Judges are trained where stage 3 asks them."""
    asked = {"sync": family.render.weights.sync > 0, "perceptual": family.render.reads, "plain": False, "unpack": False}
    return [stage for stage in STAGES if asked.get(stage, True)]


RECIPES: dict[str, Recipe] = {
    f"{name}_{stage}" if stage else name: Recipe(make_family=make, stage=stage)
    for name, make in FAMILIES.items()
    for stage in (None, *STAGES)
}
