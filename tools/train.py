"""Train the model in three stages; each may be run alone and goes on from what the one before left.

    python -m tools.train compact_audio|compact_deform|compact_render|compact [--data DIR] [--out DIR] [--resume]

DIR of ``--data`` holds what ``tools/prepare_data.py`` made: ``grid_s1`` (clips), optionally ``portraits``
(stills), ``grid_others`` (measured on, never trained on) and ``noise`` (recordings without speech).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.checkpoint import save_checkpoint
from engine.s3dnerf.config import S3DConfig, compact
from engine.s3dnerf.lip_motion import LipMotion, fit_lip_motion
from engine.s3dnerf.model import S3DNerf
from tools.training.audio_stage import AudioBranch, AudioRecipe, AudioStage, closed_code, predict_codes, report
from tools.training.clips import Clip, load_clips, read_held_out
from tools.training.deform_stage import DeformRecipe, train_deform
from tools.training.faces import FaceTrack, make_track
from tools.training.loop import Run, train
from tools.training.render_stage import RenderRecipe, train_render
from tools.training.sync_stage import SyncRecipe, load_judge, train_sync
from tools.training.voices import find_digits, gather_utterances

CREDITS = (
    "Trained on the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0), "
    "speaker 1, on official portraits of members of the US Congress (public domain), and on noise recordings."
)

CALIBRATION_CLIPS = 12  # of the held-out list, the first ones; report on the others


@dataclass(frozen=True, kw_only=True)
class Folders:
    data: Path
    out: Path


def load_training_clips(folders: Folders) -> list[Clip]:
    return load_clips(folders.data / "grid_s1", leave_out=read_held_out())


def load_measured_clips(folders: Folders, limit: int = 24) -> dict[str, list[Clip]]:
    """Clips that training never sees: the training speaker's, and other speakers where they are at hand."""
    sets = {"same speaker": load_clips(folders.data / "grid_s1", only=set(sorted(read_held_out())[:limit]))}
    if (folders.data / "grid_others").exists():
        sets["others"] = load_clips(folders.data / "grid_others")
    return sets


def load_lip_motion(folders: Folders, clips: list[Clip] | None = None) -> LipMotion:
    """The basis of the codes, fitted once and kept beside the stages."""
    path = folders.out / "lip_motion.npz"
    if not path.exists():
        clips = clips or load_training_clips(folders)
        motion = fit_lip_motion([clip.landmarks for clip in clips], codes=8)
        np.savez(path, basis=motion.basis, scale=motion.scale, guess=motion.guess, gap_mean=motion.gap_mean)
    with np.load(path) as file:
        return LipMotion(**{name: file[name] for name in file.files})


def load_recordings(folders: Folders) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sounds without speech, float32 16 kHz mono each: first halves to train with, second halves to measure with."""
    recordings = [read_mono(path) for path in _files(folders.data / "noise")]
    return [r[: len(r) // 2] for r in recordings], [r[len(r) // 2 :] for r in recordings]


def read_mono(path: Path) -> np.ndarray:
    from tools.prepare_data import read_sound

    return read_sound(path, 60).astype(np.float32) / 32768


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def compact_audio(folders: Folders, resume: bool, minutes: float | None) -> None:
    """Stage 1 of the compact recipe."""
    run_audio(folders, AudioRecipe(), Run(out=folders.out / "audio.pt", resume=resume, stop_at=stop_after(minutes)))


def stop_after(minutes: float | None) -> float | None:
    return None if minutes is None else time.monotonic() + minutes * 60


def run_audio(folders: Folders, recipe: AudioRecipe, run: Run) -> None:
    config, clips = compact(), load_training_clips(folders)
    motion = load_lip_motion(folders, clips)
    heard, unheard = load_recordings(folders)
    rooms = [read_mono(path) for path in _files(folders.data / "rooms")]
    digits = [(file, read_mono(file.path)) for file in find_digits(folders.data / "digits")]
    groups = gather_utterances(
        clips,
        motion,
        digits,
        rooms,
        variants=recipe.variants,
        synthetic_minutes=recipe.synthetic_minutes,
        seed=recipe.seed,
    )
    said = ", ".join(f"{len(group)} {name}" for name, group in zip(("clips", "synthetic", "digits"), groups, strict=True))
    print(f"audio: {said}, {len(heard)} recordings without speech", flush=True)
    held_out = load_measured_clips(folders)
    stage = AudioStage(
        config,
        recipe,
        groups,
        closed_code(clips, motion),
        motion,
        heard,
        lambda branch: report(branch, held_out, unheard, motion, config),
    )
    train(stage, run)


def load_tracks(folders: Folders, motion: LipMotion) -> tuple[list[Clip], list[FaceTrack], list[FaceTrack]]:
    """Clips, their tracks, and the tracks of still portraits (none where there is no such folder)."""
    clips = load_training_clips(folders)
    stills = load_clips(folders.data / "portraits") if (folders.data / "portraits").exists() else []
    return clips, [make_track(c, motion) for c in clips], [make_track(c, motion) for c in stills]


def compact_deform(folders: Folders, resume: bool, minutes: float | None) -> None:
    """Stage 2 of the compact recipe."""
    recipe = DeformRecipe() if minutes is None else replace(DeformRecipe(), minutes=minutes)
    motion = load_lip_motion(folders)
    _, tracks, stills = load_tracks(folders, motion)
    train_deform(compact(), recipe, tracks, stills, motion, folders.out / "deform.pt")


def load_audio_branch(folders: Folders, config: S3DConfig) -> AudioBranch:
    branch = AudioBranch(config)
    branch.load_state_dict(torch.load(folders.out / "audio.pt")["branch"])
    return branch.eval()


def hear_clips(branch: AudioBranch, clips: list[Clip], path: Path, config: S3DConfig) -> list[Tensor]:
    """Driving features of each clip [n, tokens, width], kept in a file beside the stages."""
    if not path.exists():
        torch.save([predict_codes(branch, clip, config)[0].half() for clip in clips], path)
    return [driving.float() for driving in torch.load(path)]


def compact_render(folders: Folders, resume: bool, minutes: float | None) -> None:
    """Stage 3 of the compact recipe; needs what stages 1 and 2 left."""
    run_render(folders, resume, RenderRecipe() if minutes is None else replace(RenderRecipe(), minutes=minutes))


def run_render(folders: Folders, resume: bool, recipe: RenderRecipe, *, sync: bool = False) -> None:
    config = compact(sync_loss=sync)
    motion = load_lip_motion(folders)
    clips, tracks, stills = load_tracks(folders, motion)
    branch = load_audio_branch(folders, config)
    driving = hear_clips(branch, clips, folders.out / "driving.pt", config)
    model = S3DNerf(config)
    model.features.load_state_dict(branch.features.state_dict())
    model.audio.load_state_dict(branch.network.state_dict())
    model.field.load_state_dict(torch.load(folders.out / "deform.pt")["field"])
    judge = load_judge(folders.out / "sync.pt") if sync else None
    out = folders.out / "render.pt"
    train_render(model, recipe, tracks, stills, driving, motion, out, resume=resume, judge=judge)


def compact_sync(folders: Folders, resume: bool, minutes: float | None) -> None:
    """The lip-sync discriminator, on the clips and the sound features of stage 1."""
    recipe = SyncRecipe() if minutes is None else replace(SyncRecipe(), minutes=minutes)
    config = compact()
    clips = load_training_clips(folders)
    driving = hear_clips(load_audio_branch(folders, config), clips, folders.out / "driving.pt", config)
    train_sync(recipe, clips, driving, folders.out / "sync.pt")


def compact_render_sync(folders: Folders, resume: bool, minutes: float | None) -> None:
    """Stage 3 with the lip-sync loss; needs ``compact_sync`` too. Goes on from ``render.pt`` with --resume."""
    recipe = replace(RenderRecipe(), sources=2, targets=5, in_a_row=True)
    run_render(folders, resume, recipe if minutes is None else replace(recipe, minutes=minutes), sync=True)


def compact_pack(folders: Folders, resume: bool, minutes: float | None) -> None:
    """Make the checkpoint of what stage 3 left; the gain of the codes is measured on a few clips not trained on."""
    config = compact()
    motion = load_lip_motion(folders)
    model = S3DNerf(config)
    model.load_state_dict(torch.load(folders.out / "render.pt")["model"])
    branch = AudioBranch(config)
    branch.features, branch.network = model.features, model.audio
    branch.eval()
    clips = load_clips(folders.data / "grid_s1", only=set(sorted(read_held_out())[:CALIBRATION_CLIPS]))
    told = np.concatenate([predict_codes(branch, clip, config)[1].numpy() for clip in clips])
    real = np.concatenate([motion.codes(clip.landmarks) for clip in clips])
    gain = np.clip(real.std(0) / told.std(0), 1.0, 1.4)
    path = folders.out / "s3dnerf_compact.safetensors"
    save_checkpoint(path, model, motion, closed_code(clips, motion), gain, CREDITS)
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, gain of the codes {gain.round(2)}")


def compact_all(folders: Folders, resume: bool, minutes: float | None) -> None:
    """The three stages one after the other, each for its own time, and the checkpoint."""
    compact_audio(folders, resume, minutes)
    compact_deform(folders, resume, minutes)
    compact_render(folders, resume, minutes)
    compact_pack(folders, resume, minutes)


RECIPES: dict[str, Callable[[Folders, bool, float | None], None]] = {
    "compact": compact_all,
    "compact_audio": compact_audio,
    "compact_deform": compact_deform,
    "compact_pack": compact_pack,
    "compact_render": compact_render,
    "compact_sync": compact_sync,
    "compact_render_sync": compact_render_sync,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--out", type=Path, default=None, help="default: runs/RECIPE's family")
    parser.add_argument("--resume", action="store_true", help="go on where the stage was interrupted")
    parser.add_argument("--minutes", type=float, default=None, help="instead of the recipe's own time")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    folders = Folders(data=args.data, out=args.out or Path("runs") / args.recipe.split("_")[0])
    folders.out.mkdir(parents=True, exist_ok=True)
    RECIPES[args.recipe](folders, args.resume, args.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
