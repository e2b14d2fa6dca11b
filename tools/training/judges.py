"""Recipes of the networks that judge stage 3's pictures: each is trained on real ones, then frozen."""

from __future__ import annotations

from dataclasses import replace

from tools.training.clips import load_clips, read_held_out
from tools.training.compact import STILLS_HELD_OUT, Job, training_clips, training_stills
from tools.training.loop import train
from tools.training.perceptual_stage import PerceptualRecipe, PerceptualStage, load_lip_reader, measure_reader


def compact_perceptual(job: Job) -> bool:
    """The perceptual network: reads lips from mouth boxes; leaves perceptual.pt."""
    recipe = PerceptualRecipe()
    recipe = replace(
        recipe,
        steps=recipe.steps if job.steps is None else job.steps,
        seed=recipe.seed if job.seed is None else job.seed,
    )
    stage = PerceptualStage(recipe, training_clips(job), training_stills(job), job.device)
    done = train(stage, job.run("perceptual.pt"))
    network = load_lip_reader(job.out / "perceptual.pt")
    clips = load_clips(job.data / "grid_s1", only=read_held_out())
    print("perceptual: held-out clips", measure_reader(network, clips), flush=True)
    if (job.data / "portraits").exists():
        stills = load_clips(job.data / "portraits", only=set(STILLS_HELD_OUT.read_text().split()))
        print("perceptual: held-out stills", measure_reader(network, stills), flush=True)
    return done
