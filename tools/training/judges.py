"""The networks that judge stage 3's pictures: each is trained on real ones, then frozen."""

from __future__ import annotations

from dataclasses import replace

from engine.s3dnerf.lip_reader import LipReader
from engine.s3dnerf.sync_discriminator import load_judge, save_judge
from tools.sync_figure import LEAST_FRAMES
from tools.training.job import (
    Job,
    held_out_clips,
    held_out_stills,
    other_clips,
    recordings,
    training_clips,
    training_stills,
)
from tools.training.loop import train
from tools.training.perceptual_stage import PerceptualStage, load_lip_reader, measure_reader
from tools.training.sync_measure import measure_clips
from tools.training.sync_stage import SyncStage, load_sync_state
from tools.training.vgg import VggFeatures, load_vgg


def train_perceptual(job: Job) -> bool:
    """The perceptual network: reads lips from mouth boxes; leaves perceptual.pt."""
    if job.family.vgg and load_vgg() is not None:
        print("perceptual: VGG's weights are at hand and take this network's place; nothing to train", flush=True)
        return True
    recipe = replace(job.adapt(job.family.perceptual), size=job.family.config.mouth_box)
    stage = PerceptualStage(recipe, training_clips(job), training_stills(job), job.device)
    done = train(stage, job.run("perceptual.pt"))
    network = load_lip_reader(job.out / "perceptual.pt")
    for name, pictures in (("clips", held_out_clips(job)), ("stills", held_out_stills(job))):
        if pictures:
            print(f"perceptual: held-out {name}", measure_reader(network, pictures), flush=True)
    return done


def load_reader(job: Job) -> LipReader | VggFeatures:
    """The network that the perceptual term looks through, frozen; says which it is.

    Raises:
        FileNotFoundError: it is ours, and has not been trained.
    """
    vgg = load_vgg() if job.family.vgg else None
    if vgg is not None:
        print("render: the perceptual term is that of VGG16", flush=True)
        return vgg
    print("render: the perceptual term is that of our own network, which reads lips; VGG is not used", flush=True)
    return load_lip_reader(job.given / "perceptual.pt")


def train_sync(job: Job) -> bool:
    """The lip-sync discriminator: hears log-mel, sees lips; leaves sync.pt and lip_sync_judge.safetensors."""
    family = job.family
    recipe = replace(job.adapt(family.sync), frames=family.render.sync_targets)
    stage = SyncStage(recipe, training_clips(job), recordings(job, "noise"), job.device)
    done = train(stage, job.run("sync.pt"))
    path = job.out / "lip_sync_judge.safetensors"
    save_judge(path, load_sync_state(job.out / "sync.pt"), family.judge_credits)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB", flush=True)
    judge = load_judge(path)
    for name, clips in (("held-out clips", held_out_clips(job)), ("other speakers", other_clips(job))):
        if measurable := [clip for clip in clips if len(clip) >= LEAST_FRAMES + recipe.frames]:
            print(f"sync: {name}", measure_clips(judge, measurable), flush=True)
    return done
