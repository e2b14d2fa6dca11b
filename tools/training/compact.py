"""The compact recipe, stage by stage; ``tools/train.py`` calls them by name.

Each stage takes what the ones before left in the folder of ``--out`` and returns whether it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from engine.s3dnerf.checkpoint import save_checkpoint
from engine.s3dnerf.config import S3DConfig, compact
from engine.s3dnerf.lip_motion import LipMotion, fit_lip_motion
from engine.s3dnerf.losses import LossWeights
from engine.s3dnerf.model import S3DNerf
from tools.sound_file import read_mono
from tools.training.audio_stage import AudioBranch, AudioRecipe, AudioStage, closed_code, report
from tools.training.clips import Clip, load_clips, read_held_out
from tools.training.deform_stage import DeformRecipe, DeformStage
from tools.training.faces import FaceTrack, make_track
from tools.training.heard import Calibration, Heard, calibrate, hear_clips
from tools.training.loop import Run, train
from tools.training.perceptual_stage import load_lip_reader
from tools.training.render_recipe import RenderRecipe
from tools.training.render_stage import RenderStage
from tools.training.rows import Rows
from tools.training.sync_stage import load_sync_state
from tools.training.voices import find_digits, gather_utterances

CREDITS = (
    "Trained on the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0), "
    "speaker 1; on official portraits of members of the US Congress (public domain); on synthetic voices of "
    "espeak-ng; on the Free Spoken Digit Dataset (CC BY-SA 4.0); and on noise recordings, music and room impulse "
    "responses (public domain and CC BY)."
)
# The paper's weights are for squared errors of pixels and VGG's features; these are for absolute ones and features
# of our own, set so that at the painted mouth each term pulls about as hard as the pixels do, the adversary a third.
EQUATION_9 = LossWeights(perceptual=0.5, adversarial=0.05, sync=0.05)
CALIBRATION_CLIPS = 12  # of the held-out list, the first ones; report on the others
STILLS_HELD_OUT = Path(__file__).parent.parent / "portraits_heldout.txt"

Recipe = TypeVar("Recipe", AudioRecipe, DeformRecipe, RenderRecipe)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the command line asks of any stage."""

    data: Path  # prepared: grid_s1, and where they are there portraits, grid_others, noise, rooms, digits
    out: Path  # where the stages leave their states
    resume: bool = False
    steps: int | None = None  # instead of the recipe's
    seed: int | None = None
    stop_at: float | None = None  # time.monotonic()
    device: torch.device = torch.device("cpu")

    def run(self, name: str) -> Run:
        return Run(out=self.out / name, resume=self.resume, stop_at=self.stop_at, device=self.device)

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with the command line's steps and seed."""
        steps = recipe.steps if self.steps is None else self.steps
        return replace(recipe, steps=steps, seed=recipe.seed if self.seed is None else self.seed)

    def state(self, name: str, made_by: str) -> dict:
        """What a stage before left.

        Raises:
            FileNotFoundError: it did not.
        """
        path = self.out / name
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; run {made_by} first")
        return torch.load(path, map_location="cpu")


def training_clips(job: Job) -> list[Clip]:
    return load_clips(job.data / "grid_s1", leave_out=read_held_out())


def training_stills(job: Job) -> list[Clip]:
    folder = job.data / "portraits"
    return load_clips(folder, leave_out=set(STILLS_HELD_OUT.read_text().split())) if folder.exists() else []


def calibration_clips(job: Job) -> list[Clip]:
    return load_clips(job.data / "grid_s1", only=set(sorted(read_held_out())[:CALIBRATION_CLIPS]))


def measured_clips(job: Job, limit: int = 24) -> dict[str, list[Clip]]:
    """Clips that training never sees: the training speaker's, and other speakers where they are at hand."""
    sets = {"same speaker": load_clips(job.data / "grid_s1", only=set(sorted(read_held_out())[:limit]))}
    if (job.data / "grid_others").exists():
        sets["others"] = load_clips(job.data / "grid_others")
    return sets


def lip_motion(job: Job, clips: list[Clip] | None = None) -> LipMotion:
    """The basis of the codes, fitted once and kept beside the stages."""
    path = job.out / "lip_motion.npz"
    if not path.exists():
        clips = clips or training_clips(job)
        motion = fit_lip_motion([clip.landmarks for clip in clips], codes=8)
        np.savez(path, basis=motion.basis, scale=motion.scale, guess=motion.guess, gap_mean=motion.gap_mean)
    with np.load(path) as file:
        return LipMotion(**{name: file[name] for name in file.files})


def tracks_of(job: Job, motion: LipMotion) -> tuple[list[FaceTrack], list[FaceTrack]]:
    """Tracks of the clips, and of still portraits (none where there is no such folder)."""
    return [make_track(clip, motion) for clip in training_clips(job)], [
        make_track(clip, motion) for clip in training_stills(job)
    ]


def recordings(folder: Path, longest_s: float = 60) -> list[np.ndarray]:
    """Every sound file of a folder, float32 16 kHz mono; none where there is no such folder."""
    paths = sorted(folder.iterdir()) if folder.exists() else []
    return [read_mono(path)[: int(longest_s * 16_000)] for path in paths]


def train_audio(job: Job, config: S3DConfig | None = None) -> bool:
    """Stage 1: sound -> lip-motion codes and phones."""
    config, recipe = config or compact(), job.adapt(AudioRecipe())
    clips = training_clips(job)
    motion = lip_motion(job, clips)
    digits = [(file, read_mono(file.path)) for file in find_digits(job.data / "digits")]
    rooms, noises = recordings(job.data / "rooms"), recordings(job.data / "noise")
    heard, unheard = [r[: len(r) // 2] for r in noises], [r[len(r) // 2 :] for r in noises]
    groups = gather_utterances(
        clips,
        motion,
        digits,
        rooms,
        variants=recipe.variants,
        synthetic_minutes=recipe.synthetic_minutes,
        seed=recipe.seed,
    )
    held_out = measured_clips(job)
    stage = AudioStage(
        config,
        recipe,
        groups,
        closed_code(clips, motion),
        motion,
        heard,
        lambda branch: report(branch, held_out, unheard, motion, config),
    )
    return train(stage, job.run("audio.pt"))


def train_deform(job: Job, config: S3DConfig | None = None) -> bool:
    """Stage 2: codes -> displacement lattice."""
    motion = lip_motion(job)
    stage = DeformStage(config or compact(), job.adapt(DeformRecipe()), *tracks_of(job, motion), motion, job.device)
    return train(stage, job.run("deform.pt"))


def audio_branch(job: Job, config: S3DConfig) -> AudioBranch:
    branch = AudioBranch(config)
    branch.load_state_dict(job.state("audio.pt", "stage 1 (compact_audio)")["branch"])
    return branch.eval()


def heard_clips(job: Job, clips: list[Clip], motion: LipMotion, config: S3DConfig) -> Heard:
    """What stage 1 hears in the clips, widened as at run time."""
    branch = audio_branch(job, config)
    calibration = calibrate(branch, calibration_clips(job), motion, config)
    return hear_clips(branch, clips, calibration, config, job.out / "audio.pt", job.out / "driving.pt")


def train_render(job: Job, recipe: RenderRecipe, config: S3DConfig) -> bool:
    """Stage 3: pictures; needs what stages 1 and 2 left."""
    recipe = job.adapt(recipe)
    motion = lip_motion(job)
    tracks, stills = tracks_of(job, motion)
    heard = heard_clips(job, [track.clip for track in tracks], motion, config)
    torch.manual_seed(recipe.seed)
    model = S3DNerf(config)
    branch = audio_branch(job, config)
    model.features.load_state_dict(branch.features.state_dict())
    model.audio.load_state_dict(branch.network.state_dict())
    model.field.load_state_dict(job.state("deform.pt", "stage 2 (compact_deform)")["field"])
    reader = load_lip_reader(job.out / "perceptual.pt") if recipe.reads else None
    if reader is not None:
        print("render: the perceptual term is that of our own network, which reads lips; VGG is not used", flush=True)
    judge = load_sync_state(job.out / "sync.pt") if recipe.weights.sync > 0 else None
    rows = Rows(tracks, stills, heard, motion, recipe)
    stage = RenderStage(model, recipe, rows, job.device, reader=reader, judge=judge)
    return train(stage, job.run("render.pt"))


def pack(job: Job, config: S3DConfig | None = None) -> Path:
    """Make the checkpoint of what stage 3 left."""
    motion, clips = lip_motion(job), calibration_clips(job)
    model = S3DNerf(config or compact())
    model.load_state_dict(job.state("render.pt", "stage 3 (compact_render)")["model"])
    branch = AudioBranch(model.config)
    branch.features, branch.network = model.features, model.audio
    told: Calibration = calibrate(branch.eval(), clips, motion, model.config)
    path = job.out / f"s3dnerf_{model.config.name}.safetensors"
    save_checkpoint(path, model, motion, told.closed, told.gain, CREDITS)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, gain of the codes {told.gain.round(2)}")
    return path
