"""The stages of a family of recipes; ``tools/train.py`` calls them by name.

Each takes what the ones before left and returns whether it is done.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine.s3dnerf.checkpoint import read_motion, save_checkpoint
from engine.s3dnerf.lip_motion import LipMotion, fit_lip_motion
from engine.s3dnerf.losses import LossWeights
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.sync_discriminator import load_judge
from tools.sound_file import read_mono
from tools.training.audio_stage import AudioBranch, AudioStage, closed_code, report
from tools.training.clips import Clip, read_basis
from tools.training.deform_stage import DeformStage
from tools.training.faces import FaceTrack, make_track
from tools.training.field_stage import FieldStage
from tools.training.heard import Calibration, Heard, calibrate, hear_clips
from tools.training.job import (
    MEASURED_CLIPS,
    Job,
    calibration_clips,
    held_out_clips,
    other_clips,
    read_state,
    recordings,
    training_clips,
    training_stills,
)
from tools.training.judges import load_reader
from tools.training.loop import train
from tools.training.render_recipe import RenderRecipe
from tools.training.render_stage import RenderStage
from tools.training.rows import Rows
from tools.training.sync_stage import load_sync_state
from tools.training.voices import find_digits, gather_utterances

EARS = ("features.", "audio.", "field.audio", "field.attend", "field.inject")  # what hangs on a_dri
LISTENING = (*EARS, "slots.")


def lip_motion(job: Job, clips: list[Clip] | None = None) -> LipMotion:
    """The basis of the codes, fitted once and kept beside stage 1."""
    path = job.given / "lip_motion.npz"
    if not path.exists():
        clips = clips or training_clips(job)
        motion = fit_lip_motion([clip.landmarks for clip in clips], codes=job.family.config.codes)
        np.savez(path, basis=motion.basis, scale=motion.scale, guess=motion.guess, gap_mean=motion.gap_mean)
    return read_basis(path)


_tracks: dict[tuple[object, ...], tuple[list[FaceTrack], list[FaceTrack]]] = {}  # of the data last asked for


def tracks_of(job: Job, motion: LipMotion) -> tuple[list[FaceTrack], list[FaceTrack]]:
    """Tracks of the clips, and of still portraits (none where there is no such folder); kept for the next stage."""
    family = job.family
    faces = (family.speech, family.held_out, family.stills, family.stills_held_out)
    key = (job.data, *faces, motion.basis.tobytes(), motion.scale.tobytes())
    if key not in _tracks:
        _tracks.clear()  # before the others are read
        clips, stills = training_clips(job), training_stills(job)
        _tracks[key] = [make_track(clip, motion) for clip in clips], [make_track(still, motion) for still in stills]
    return _tracks[key]


def train_audio(job: Job) -> bool:
    """Stage 1, sound -> lip-motion codes."""
    config, recipe = job.family.config, job.adapt(job.family.audio)
    if job.steps is not None:  # these are all of them, the last ones included
        polish = job.steps * recipe.polish_steps // (job.family.audio.steps + recipe.polish_steps)
        recipe = replace(recipe, steps=job.steps - polish, polish_steps=polish)
    clips = training_clips(job)
    motion = lip_motion(job, clips)
    digits = [(file, read_mono(file.path)) for file in find_digits(job.data / "digits")]
    rooms, noises = recordings(job, "rooms"), recordings(job, "noise")
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
    measured = {"held out": held_out_clips(job, MEASURED_CLIPS), "others": other_clips(job)}
    measured = {name: some for name, some in measured.items() if some}
    stage = AudioStage(
        config,
        recipe,
        groups,
        closed_code(clips, motion),
        motion,
        heard,
        lambda branch: report(branch, measured, unheard, motion, config),
        job.device,
    )
    return train(stage, job.run("audio.pt"))


def train_deform(job: Job) -> bool:
    """Stage 2, codes -> displacement lattice, from landmarks."""
    motion = lip_motion(job)
    recipe = job.adapt(job.family.deform)
    stage = DeformStage(job.family.config, recipe, *tracks_of(job, motion), motion, job.device)
    return train(stage, job.run("deform.pt"))


def audio_branch(job: Job) -> AudioBranch:
    """What stage 1 left.

    Raises:
        FileNotFoundError: it has not run.
        ValueError: it ran with another model.
    """
    branch, path = AudioBranch(job.family.config), job.given / "audio.pt"
    try:
        branch.load_state_dict(read_state(path, job.family.recipe("audio"))["branch"])
    except RuntimeError as error:
        raise ValueError(f"{path} is of a model of other sizes; run {job.family.recipe('audio')} anew") from error
    return branch.to(job.device).eval()


def heard_clips(job: Job, branch: AudioBranch, clips: list[Clip], motion: LipMotion) -> Heard:
    """What stage 1 hears in the clips, widened as at run time."""
    config, kept = job.family.config, job.given
    calibration = calibrate(branch, calibration_clips(job), motion, config)
    return hear_clips(branch, clips, calibration, config, kept / "audio.pt", kept / "driving.pt")


def train_render(job: Job, recipe: RenderRecipe | None = None) -> bool:
    """Stage 3, pictures, with the terms of equation (9) that the recipe weighs."""
    return train(render_stage(job, job.adapt(recipe or job.family.render)), job.run("render.pt"))


def render_stage(job: Job, recipe: RenderRecipe, model: S3DNerf | None = None) -> RenderStage:
    """Stage 3 as it begins: with a model, or else on what stages 1 and 2 left."""
    motion, branch = lip_motion(job), audio_branch(job)
    reader = load_reader(job) if recipe.reads else None
    judge = load_sync_state(job.given / "sync.pt") if recipe.weights.sync > 0 else None
    tracks, stills = tracks_of(job, motion)
    heard = heard_clips(job, branch, [track.clip for track in tracks], motion)
    torch.manual_seed(recipe.seed)
    model = model or first_pictures(job, branch)
    rows = Rows(tracks, stills, heard, motion, recipe)
    return RenderStage(model, recipe, rows, job.device, reader=reader, judge=judge)


def first_pictures(job: Job, branch: AudioBranch) -> S3DNerf:
    """The model before stage 3: stage 1's ears, stage 2's field, and with ``job.begin`` a checkpoint's pictures."""
    config = job.family.config
    model = S3DNerf(config)
    model.features.load_state_dict(branch.features.state_dict())
    model.audio.load_state_dict(branch.network.state_dict())
    if config.deformation != "none":
        model.field.load_state_dict(read_state(job.out / "deform.pt", job.family.recipe("deform"))["field"])
    if job.begin is not None:
        print(f"render: {take_over(model, job.begin)}", flush=True)
    return model


def take_over(model: S3DNerf, path: Path, but: tuple[str, ...] = LISTENING) -> str:
    """Begin with what fits of a checkpoint's weights, but for what is named so; says how many there were.

    Raises:
        FileNotFoundError, ValueError: it cannot be read.
    """
    try:
        theirs = {name.removeprefix("model."): tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no checkpoint to begin with: {error}") from error
    own = model.state_dict()
    taken = {
        name: tensor
        for name, tensor in theirs.items()
        if not name.startswith(but) and name in own and own[name].shape == tensor.shape
    }
    model.load_state_dict(own | taken)
    return f"begins with {len(taken)} of {len(own)} tensors of {path}"


def train_plain(job: Job) -> bool:
    """Stage 3 with the pixel and deformation terms alone; for comparison."""
    nothing = LossWeights(perceptual=0.0, adversarial=0.0, sync=0.0)
    return train_render(job, replace(job.family.render, weights=nothing, shape_weight=0.0))


def train_field(job: Job) -> bool:
    """Stage 4, the displacement lattice again: from landmarks, with what stage 3 made of portraits."""
    motion = lip_motion(job)
    branch = audio_branch(job)
    model = pictures_model(job, branch)
    tracks, stills = tracks_of(job, motion)
    heard = heard_clips(job, branch, [track.clip for track in tracks], motion)
    stage = FieldStage(model, job.adapt(job.family.field), tracks, stills, heard, motion, job.device)
    return train(stage, job.run("field.pt"))


def pictures_model(job: Job, branch: AudioBranch) -> S3DNerf:
    """What stage 3 left; or, with ``job.begin``, a checkpoint's pictures, slots and field behind stage 1's ears."""
    model = S3DNerf(job.family.config)
    if job.begin is None:
        model.load_state_dict(read_state(job.out / "render.pt", job.family.recipe("render"))["model"])
        return model
    model.features.load_state_dict(branch.features.state_dict())
    model.audio.load_state_dict(branch.network.state_dict())
    print(f"field: {take_over(model, job.begin, EARS)}", flush=True)
    return model


def train_finish(job: Job) -> bool:
    """Stage 5, the pictures' networks get used to stage 4's field, which stays as it is."""
    family = job.family
    before = read_state(job.out / "render.pt", family.recipe("render"))
    model = S3DNerf(family.config)
    model.load_state_dict(before["model"])
    model.field.load_state_dict(read_state(job.out / "field.pt", family.recipe("field"))["field"])
    stage = render_stage(job, job.adapt(family.finishing), model)
    if stage.opponent is not None:
        stage.opponent.restore(before)
    return train(stage, job.run("finish.pt"))


def unpack(job: Job) -> bool:
    """Lay a checkpoint (``--begin``) out as what stages 1 and 3 left, so that the later ones can be run again.

    With it goes the lip-sync judge that ships. What the model has now and the checkpoint did not begins from nothing.
    """
    if job.begin is None:
        raise ValueError("which checkpoint? name it with --begin")
    torch.manual_seed(0)
    model = S3DNerf(job.family.config)
    print(f"unpack: {take_over(model, job.begin, ())}", flush=True)
    torch.save(dict(model=model.state_dict()), job.out / "render.pt")
    branch = AudioBranch(job.family.config)
    branch.features, branch.network = model.features, model.audio
    torch.save(dict(branch=branch.state_dict()), job.out / "audio.pt")
    np.savez(job.out / "lip_motion.npz", **asdict(read_motion(job.begin)))
    judge = load_judge()
    torch.save(dict(judge=judge.state_dict(), frames=judge.frames), job.out / "sync.pt")
    return True


def pack(job: Job) -> bool:
    """Write the checkpoint of what the stages left; nothing is learned."""
    pack_checkpoint(job)
    return True


def pack_checkpoint(job: Job) -> Path:
    """Make the checkpoint of what stage 5 left, or else stages 3 and 4; gives its path."""
    family, motion = job.family, lip_motion(job)
    if (job.out / "finish.pt").exists():
        model = S3DNerf(family.config)
        model.load_state_dict(read_state(job.out / "finish.pt", family.recipe("finish"))["model"])
    else:
        model = pictures_model(job, audio_branch(job))
        if (job.out / "field.pt").exists():
            model.field.load_state_dict(read_state(job.out / "field.pt", family.recipe("field"))["field"])
    branch = AudioBranch(family.config)
    branch.features, branch.network = model.features, model.audio
    told: Calibration = calibrate(branch.eval(), calibration_clips(job), motion, family.config)
    path = job.out / f"s3dnerf_{family.config.name}.safetensors"
    save_checkpoint(path, model, motion, told.closed, told.gain, family.credits)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, gain of the codes {told.gain.round(2)}", flush=True)
    return path
