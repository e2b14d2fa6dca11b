"""Train the paper's ablations in short runs of equal length, measure them alike, and write a table.

    python -m tools.ablate --steps N [--deform-steps M] --clips DIR [--list FILE] [--limit K]
                           [--data DIR] [--base DIR] [--out DIR] [--markdown docs/ablations.md]

All share stage 1, the judges and the basis of the codes, which --base holds. What is done is kept in --out, a
folder each: the same command goes on where it was interrupted, and only measures what has no figures yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.api import Engine
from engine.errors import VisavisError
from tools.clip import find_clips
from tools.engine_pool import EnginePool
from tools.evaluate import evaluate_clips, read_list
from tools.files import replacing
from tools.report import describe_machine, format_table, positive_int, write_json
from tools.training.ablations import Ablation, list_ablations, seconds_spent, train_ablation
from tools.training.compact import compact_family
from tools.training.job import CALIBRATION_CLIPS, Job
from tools.training.loop import pick_device

COLUMNS = {"ssim": "SSIM", "psnr": "PSNR", "m_lmd": "M-LMD", "mouth_corr": "mouth_corr", "sync": "Sync (ours)"}
REAL = {"ssim": 1.0, "m_lmd": 0.0, "mouth_corr": 1.0}


def choose_clips(args: argparse.Namespace, job: Job) -> list[Path]:
    """The first clips of the list, but for those on which the gain of the codes is set."""
    folder = job.data / job.family.speech
    gain_is_set_on = sorted(job.family.held_out(folder))[:CALIBRATION_CLIPS]
    paths = find_clips(args.clips, read_list(args.list) if args.list else None)
    paths = [path for path in paths if path.stem not in gain_is_set_on][: args.limit]
    if not paths:
        raise ValueError(f"all clips asked for in {args.clips} are among those that set the gain; name others")
    return paths


def measure(checkpoint: Path, clips: list[Path]) -> dict[str, Any]:
    """The figures of ``tools/evaluate.py`` for a checkpoint, in a process of its own.

    Raises:
        ValueError: not one of the clips can be measured.
    """
    own = {"VISAVIS_CHECKPOINT": str(checkpoint), "VISAVIS_CACHE": str(checkpoint.parent / "exports")}
    with environment(own), EnginePool("s3dnerf", 1) as pool:
        told, _ = pool.run({"engine": describe_engine}, "engine")
        figures = evaluate_clips(pool, clips, None)
    if not figures["clips"]:
        raise ValueError(f"no clip could be measured: {figures['failed'][0]['reason']}")
    return told["engine"] | figures


def describe_engine(engine: Engine) -> dict[str, str]:
    return {"fingerprint": engine.fingerprint, "backend": engine.backend}


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Variables that the processes begun in the block see."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_ablation(ablation: Ablation, job: Job, clips: list[Path]) -> dict[str, Any]:
    """Train and measure one, as far as that is not done; gives what its figures.json holds."""
    path = job.out / "figures.json"
    names = [clip.stem for clip in clips]
    begin = time.monotonic()
    checkpoint = train_ablation(ablation, job)
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["asked"] == names:
            print(f"{ablation.name}: done before", flush=True)
            return kept
    trained = time.monotonic()
    figures = measure(checkpoint, clips)
    told = {"name": ablation.name, "title": ablation.title, "asked": names, **figures}
    told["seconds"] = seconds_spent(job.out) | {"measuring": time.monotonic() - trained}
    write_json(path, told)
    print(f"{ablation.name}: {time.monotonic() - begin:.0f} s", flush=True)
    return told


def format_rows(runs: list[dict[str, Any]]) -> str:
    """A row each, and the two anchors, which are the same for all."""
    mean = runs[0]["mean"]
    rows = [[run["title"], *(run["mean"].get(key) for key in COLUMNS)] for run in runs]
    rows.append(["anchor: still first frame", *(mean.get(f"{key}_still") for key in COLUMNS)])
    rows.append(["anchor: real frames", *(REAL.get(key, mean.get(f"{key}_real")) for key in COLUMNS)])
    return format_table(["", *COLUMNS.values()], rows)


def format_command(args: argparse.Namespace) -> str:
    """How to do it again; where folders lie is the reader's business."""
    chosen = "" if args.list is None else f" --list {args.list.name}"
    steps = f"--steps {args.steps} --deform-steps {args.deform_steps} --seed {args.seed}"
    return f"python -m tools.ablate {steps} --clips GRID_S1{chosen} --limit {args.limit}"


def format_page(runs: list[dict[str, Any]], args: argparse.Namespace, recipe_steps: int) -> str:
    """The Markdown page."""
    seconds = format_table(
        ["seconds", "stage 2", "stage 3", "measuring"],
        [[run["title"], *(run["seconds"].get(part) for part in ("deform", "render", "measuring"))] for run in runs],
    )
    failed = sorted({f"{run['name']}: {one['clip']} ({one['reason']})" for run in runs for one in run["failed"]})
    machine = describe_machine()
    return f"""# Ablations

What the parts of the model are worth, after the paper's table 3, in short runs of the compact recipe.

```sh
{format_command(args)}
```

{format_rows(runs)}

Means over {runs[0]["mean"]["count"]} clip(s) of the training speaker that no stage has learned from and on which the
gain of the codes was not set. `python -m tools.evaluate --help` tells what each figure is. Sync is that of our own
judge, which also gives the lip-sync loss; M-LMD is in pixels, smaller is better; PSNR is in dB.

**How they were trained.** Stage 1 is the same for all. Stage 2 took {args.deform_steps} steps (without a deformation
there is none), stage 3 took {args.steps} from nothing, with the same seed, rates, rows and losses but for what the row
names. None had an adversary: in so few steps it would only begin to learn. {machine["cpu"]}, {machine["usable_cores"]}
cores:

{seconds}

**What this does not tell.** Stage 3's recipe has {recipe_steps} steps; after {args.steps} the pictures are still
coarse, and what one part is worth at the end can differ from what it is worth here. There was one run of each with one
seed, so small differences mean nothing: read the order as a hint, not as a ranking. The mouth's codes, which the
compact model has and the paper's has not, drive the lips in every row, whatever else is left out; in "no deformation"
they drive the paint. SSIM and PSNR are of whole crops, of which the lips are a small part.

The figures are not comparable with the paper's (other data, sizes, losses, landmarks, and another judge of sync) nor
with the shipped checkpoint's.
{"" if not failed else chr(10) + "Clips that could not be measured: " + "; ".join(failed) + "." + chr(10)}"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/data"), help="as for tools/train.py")
    parser.add_argument("--base", type=Path, default=Path("runs/compact"), help="where stage 1 and the judges lie")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=positive_int, required=True, help="of stage 3, each")
    parser.add_argument("--deform-steps", type=positive_int, help="of stage 2, each (default: as many)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="train and measure these; the table has what is done")
    parser.add_argument("--clips", type=Path, required=True, metavar="DIR", help="folder of videos to measure on")
    parser.add_argument("--list", type=Path, metavar="FILE", help="only the clips named there, one a line")
    parser.add_argument("--limit", type=positive_int, default=8, metavar="K", help="the first K (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="F.md", help="write the page here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive_int)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


def ablate(args: argparse.Namespace) -> str:
    """Run what is asked, write the reports, give the table.

    Raises:
        FileNotFoundError, ValueError, VisavisError: data, stage 1 or clips are missing, or settings disagree.
    """
    family = compact_family()
    device = pick_device(args.device)
    job = Job(data=args.data, out=args.out, base=args.base, family=family, seed=args.seed, device=device)
    clips = choose_clips(args, job)
    ablations = list_ablations(family, args.steps, args.deform_steps)
    unknown = set(args.only or ()) - {one.name for one in ablations}
    if unknown:
        raise ValueError(
            f"no ablation is called {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in ablations)}"
        )
    runs = []
    for one in ablations:
        own = replace(job, out=args.out / one.name)
        if not args.only or one.name in args.only:
            runs.append(run_ablation(one, own, clips))
        elif (own.out / "figures.json").exists():
            runs.append(json.loads((own.out / "figures.json").read_text(encoding="utf-8")))
    write_json(
        args.out / "ablations.json",
        {"steps": args.steps, "deform_steps": args.deform_steps, "machine": describe_machine(), "runs": runs},
    )
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        with replacing(args.markdown, "page") as temporary:
            temporary.write_text(format_page(runs, args, family.render.steps), encoding="utf-8")
    return format_rows(runs)


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.deform_steps = args.deform_steps or args.steps
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        print(ablate(args))
    except (FileNotFoundError, ValueError, VisavisError) as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
