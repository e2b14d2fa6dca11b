"""Recipes of the networks that judge stage 3's pictures: each is trained on real ones, then frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from engine.s3dnerf.sync_discriminator import load_judge, save_judge
from tools.training.clips import load_clips, read_held_out
from tools.training.compact import STILLS_HELD_OUT, Job, recordings, training_clips, training_stills
from tools.training.loop import train
from tools.training.perceptual_stage import PerceptualRecipe, PerceptualStage, load_lip_reader, measure_reader
from tools.training.sync_measure import measure_clips
from tools.training.sync_stage import SyncRecipe, SyncStage, load_sync_state

SYNC_CREDITS = (
    "Trained on the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0), "
    "speaker 1, and on noise recordings and music (public domain and CC BY)."
)

Recipe = TypeVar("Recipe", PerceptualRecipe, SyncRecipe)


def compact_perceptual(job: Job) -> bool:
    """The perceptual network: reads lips from mouth boxes; leaves perceptual.pt."""
    recipe = _adapt(job, PerceptualRecipe())
    stage = PerceptualStage(recipe, training_clips(job), training_stills(job), job.device)
    done = train(stage, job.run("perceptual.pt"))
    network = load_lip_reader(job.out / "perceptual.pt")
    clips = load_clips(job.data / "grid_s1", only=read_held_out())
    print("perceptual: held-out clips", measure_reader(network, clips), flush=True)
    if (job.data / "portraits").exists():
        stills = load_clips(job.data / "portraits", only=set(STILLS_HELD_OUT.read_text().split()))
        print("perceptual: held-out stills", measure_reader(network, stills), flush=True)
    return done


def compact_sync(job: Job) -> bool:
    """The lip-sync discriminator: hears log-mel, sees lips; leaves sync.pt and lip_sync_judge.safetensors."""
    recipe = _adapt(job, SyncRecipe())
    stage = SyncStage(recipe, training_clips(job), recordings(job.data / "noise"), job.device)
    done = train(stage, job.run("sync.pt"))
    path = job.out / "lip_sync_judge.safetensors"
    save_judge(path, load_sync_state(job.out / "sync.pt"), SYNC_CREDITS)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB", flush=True)
    judge = load_judge(path)
    print("sync: held-out clips", measure_clips(judge, load_clips(job.data / "grid_s1", only=read_held_out())))
    if (job.data / "grid_others").exists():
        print("sync: other speakers", measure_clips(judge, load_clips(job.data / "grid_others")), flush=True)
    return done


def _adapt(job: Job, recipe: Recipe) -> Recipe:
    """The recipe with the command line's steps and seed."""
    steps = recipe.steps if job.steps is None else job.steps
    return replace(recipe, steps=steps, seed=recipe.seed if job.seed is None else job.seed)
