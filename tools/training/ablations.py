"""The paper's table 3 in short runs: what each leaves out, and how it is trained beside the others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from engine.s3dnerf.config import DeformationKind
from engine.s3dnerf.losses import LossWeights
from tools.training import stages
from tools.training.family import Family
from tools.training.job import Job
from tools.training.render_recipe import RenderRecipe

TITLES: dict[DeformationKind, str] = {
    "cross_modal": "full",
    "no_correlation": "deformation without correlation",
    "concatenated": "features concatenated instead of attended to",
    "naive": "naive deformation, point by point",
    "none": "no deformation",
}
SYNC_WEIGHT = 0.05  # of the lip-sync loss where the recipe at hand has none


@dataclass(frozen=True, kw_only=True)
class Ablation:
    name: str  # of its folder
    title: str  # of its row
    family: Family


def list_ablations(family: Family, steps: int, deform_steps: int) -> list[Ablation]:
    """The family's recipe, shortened and without an adversary, and what it becomes when something is left out.

    Args:
        family: with the model in full.
        steps: of stage 3.
        deform_steps: of stage 2, which no deformation does without.
    """
    render = shorten(family.render, steps)
    deform = replace(family.deform, steps=deform_steps)
    made = []
    for kind in get_args(DeformationKind):
        name = "full" if kind == "cross_modal" else kind
        changed = replace(family, config=replace(family.config, deformation=kind), deform=deform, render=render)
        made.append(Ablation(name=name, title=TITLES[kind], family=changed))
    had = render.weights.sync > 0
    other = replace(render, weights=replace(render.weights, sync=0.0 if had else SYNC_WEIGHT))
    name, title = ("no_sync_loss", "without lip-sync loss") if had else ("sync_loss", "with lip-sync loss")
    return [*made, Ablation(name=name, title=title, family=replace(made[0].family, render=other))]


def shorten(render: RenderRecipe, steps: int) -> RenderRecipe:
    """Stage 3 in few steps: the rates fall within them, and there is no adversary, which would only begin to learn."""
    weights: LossWeights = replace(render.weights, adversarial=0.0)
    return replace(render, steps=steps, warm_up=min(render.warm_up, steps // 5), weights=weights)


def train_ablation(ablation: Ablation, job: Job) -> Path:
    """Stages 2 and 3 and the checkpoint, each only as far as it is not done yet; gives the checkpoint's path.

    Args:
        ablation: what to train.
        job: with ``out`` of this ablation alone, and ``base`` where stage 1 and the judges lie.

    Raises:
        FileNotFoundError: something is missing in ``base``.
        ValueError: ``out`` holds a run of other settings.
    """
    family = ablation.family
    job = replace(job, family=family, resume=True)
    path = job.out / f"s3dnerf_{family.config.name}.safetensors"
    keep_settings(job.out / "settings.json", describe(ablation, job))
    if not path.exists():
        if family.config.deformation != "none":
            stages.train_deform(job)
        stages.train_render(job)
        stages.pack_checkpoint(job)
    return path


def describe(ablation: Ablation, job: Job) -> dict[str, Any]:
    """What makes this run what it is; another one must not go on from its states."""
    family = ablation.family
    if not (job.given / "audio.pt").exists():
        raise FileNotFoundError(f"there is no {job.given / 'audio.pt'}; run stage 1 first ({family.recipe('audio')})")
    return dict(
        deformation=family.config.deformation,
        steps=family.render.steps,
        deform_steps=family.deform.steps,
        seed=job.seed or 0,
        weights=vars(family.render.weights),
        stage_1=hashlib.sha256((job.given / "audio.pt").read_bytes()).hexdigest()[:16],
    )


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run that begins.

    Raises:
        ValueError: one of other settings has begun there.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    others = [
        f"{name} {there.get(name)!r}, not {value!r}" for name, value in settings.items() if there.get(name) != value
    ]
    if others:
        raise ValueError(f"{path.parent} holds a run with {', '.join(others)}; delete it or take another --out")


def seconds_spent(folder: Path) -> dict[str, float]:
    """Of each stage in an ablation's folder."""
    found = {stage: folder / f"{stage}.pt" for stage in ("deform", "render")}
    return {stage: torch.load(path, map_location="cpu")["spent"] for stage, path in found.items() if path.exists()}
