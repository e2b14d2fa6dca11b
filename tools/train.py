"""Train the model stage by stage; each stage goes on from what the one before left.

    python -m tools.train RECIPE [--data DIR] [--out DIR] [--resume] [--steps N] [--minutes M]

DIR of ``--data`` holds what ``tools/prepare_data.py`` made: ``grid_s1`` (clips) and, where they are at hand,
``portraits`` (stills), ``grid_others`` (measured on, never trained on), and sound files in ``noise``
(no speech), ``rooms`` (impulse responses) and ``digits`` (Free Spoken Digit Dataset).

A run is scheduled by steps; ``--minutes`` only stops it early, and ``--resume`` goes on to the same end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.s3dnerf.config import compact
from tools.training import compact as stages
from tools.training.compact import Job
from tools.training.judges import compact_perceptual, compact_sync
from tools.training.loop import pick_device
from tools.training.render_recipe import RenderRecipe


def compact_audio(job: Job) -> bool:
    """Stage 1, sound -> lip-motion codes: a small Wav2Vec2 and the audio network."""
    return stages.train_audio(job)


def compact_deform(job: Job) -> bool:
    """Stage 2, codes -> displacement lattice, from landmarks."""
    return stages.train_deform(job)


def compact_render(job: Job) -> bool:
    """Stage 3, pictures, with every term of equation (9)."""
    return stages.train_render(job, RenderRecipe(weights=stages.EQUATION_9, shape_weight=1.0), compact())


def compact_plain(job: Job) -> bool:
    """Stage 3 with the pixel and deformation terms alone; for comparison."""
    return stages.train_render(job, RenderRecipe(), compact())


def compact_pack(job: Job) -> bool:
    """Write the checkpoint of what stage 3 left; nothing is learned."""
    return stages.pack(job).is_file()


def compact_all(job: Job) -> bool:
    """Every stage in order, each from where the one before left off, and the checkpoint."""
    return all(
        stage(job) for stage in (compact_audio, compact_deform, compact_perceptual, compact_render, compact_pack)
    )


RECIPES: dict[str, Callable[[Job], bool]] = {
    "compact": compact_all,
    "compact_audio": compact_audio,
    "compact_deform": compact_deform,
    "compact_perceptual": compact_perceptual,
    "compact_sync": compact_sync,
    "compact_render": compact_render,
    "compact_plain": compact_plain,
    "compact_pack": compact_pack,
}


def describe_recipes() -> str:
    """A line each."""
    width = max(map(len, RECIPES))
    return "\n".join(f"  {name:{width}}  {(recipe.__doc__ or '').strip()}" for name, recipe in RECIPES.items())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nrecipes:\n{describe_recipes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--out", type=Path, default=None, help="default: runs/RECIPE's family")
    parser.add_argument("--resume", action="store_true", help="go on where a stage was interrupted")
    parser.add_argument("--steps", type=_positive, default=None, help="instead of the recipe's own")
    parser.add_argument("--seed", type=int, default=None, help="instead of the recipe's own")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long, wherever the run is")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=_positive, default=None)
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        device = pick_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    job = Job(
        data=args.data,
        out=args.out or Path("runs") / args.recipe.split("_")[0],
        resume=args.resume,
        steps=args.steps,
        seed=args.seed,
        stop_at=None if args.minutes is None else time.monotonic() + args.minutes * 60,
        device=device,
    )
    job.out.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if RECIPES[args.recipe](job) else 3  # 3: stopped before the last step
    except (FileNotFoundError, ValueError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


if __name__ == "__main__":
    sys.exit(main())
