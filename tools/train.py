"""Train the model stage by stage; each stage goes on from what the one before left.

    python -m tools.train RECIPE [--data DIR] [--out DIR] [--resume] [--steps N] [--minutes M]

DIR of ``--data`` holds what ``tools/prepare_data.py`` made. For ``compact``: ``grid_s1`` (clips) and, where they
are at hand, ``portraits`` (stills) and ``grid_others`` (measured on, never trained on). For ``paper_hdtf``: ``hdtf``
and perhaps ``portraits``. For both, perhaps, sound files in ``noise`` (no speech), ``rooms`` (impulse responses)
and ``digits`` (Free Spoken Digit Dataset; compact alone).

A run is scheduled by steps; ``--minutes`` only stops it early, and ``--resume`` goes on to the same end.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from engine.errors import VisavisError
from tools.training.job import Job
from tools.training.loop import pick_device
from tools.training.recipes import RECIPES


def describe_recipes() -> str:
    """A line each."""
    width = max(map(len, RECIPES))
    return "\n".join(f"  {name:{width}}  {recipe.describe()}" for name, recipe in RECIPES.items())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nrecipes:\n{describe_recipes()}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--data", type=Path, default=Path("runs/data"))
    parser.add_argument("--out", type=Path, default=None, help="default: runs/ and the recipe's family")
    parser.add_argument(
        "--begin",
        type=Path,
        metavar="CHECKPOINT",
        help="stage 3 begins with its weights for pictures; stage 4, without a stage 3, with these and its field; "
        "unpack lays all of it out",
    )
    parser.add_argument("--resume", action="store_true", help="go on where a stage was interrupted")
    parser.add_argument("--steps", type=_positive, default=None, help="instead of the recipe's own")
    parser.add_argument("--seed", type=int, default=None, help="instead of the recipe's own")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long, wherever the run is")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=_positive, default=None)
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="processes that draw batches (default: on a GPU all processors but two, else none beside a thread)",
    )
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        device = pick_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    recipe = RECIPES[args.recipe]
    family = recipe.make_family()
    job = Job(
        family=family,
        data=args.data,
        out=args.out or Path("runs") / family.name,
        begin=args.begin,
        resume=args.resume,
        steps=args.steps,
        seed=args.seed,
        stop_at=None if args.minutes is None else time.monotonic() + args.minutes * 60,
        device=device,
        workers=_workers(device) if args.workers is None else max(0, args.workers),
    )
    job.out.mkdir(parents=True, exist_ok=True)
    try:
        return 0 if recipe.run(job) else 3  # 3: stopped before the last step
    except (FileNotFoundError, ValueError, VisavisError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def _workers(device: torch.device) -> int:
    return max(0, (os.cpu_count() or 1) - 2) if device.type == "cuda" else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


if __name__ == "__main__":
    sys.exit(main())
