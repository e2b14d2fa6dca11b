"""Build TensorRT plans of the engine's stages ahead of time.

python -m tools.compile_engine --target sm_75..sm_120 [--target ...] --out DIR [--checkpoint F]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from engine.compile.gpu import Gpu, present_gpu
from engine.compile.plan_builder import Binding, Built, LibraryName, PlanMaker, check_target, load_library, targets_of
from engine.compile.plan_cache import ANY, plan_folder, write_plan
from engine.compile.tensorrt import plan_key
from engine.errors import EngineUnavailable, FileError, VisavisError
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from engine.s3dnerf.engine import AVATAR_VERSION
from engine.s3dnerf.stage_examples import stages_of
from tools.report import format_table

LIBRARIES: dict[str, LibraryName] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
EPILOG = """\
Targets are compute capabilities: sm_86 is the GeForce RTX 30 series, sm_89 the 40, sm_120 the 50, sm_75 the 20.
sm_75..sm_120 stands for all that the library knows from the one to the other. Without --target the plans are for
the GPU of this machine.

tensorrt-rtx (extra rtx) builds for any target on any machine, a GPU is not needed. tensorrt (extra nvidia) builds
for the GPU of this machine only.

The plans are for this version of Visavis, of the library and of torch, and for this checkpoint. Put them into the
folder "plans" of the cache (VISAVIS_CACHE, or ~/.cache/visavis) of the machine that serves: with --backend
tensorrt-rtx it takes those that fit, and builds what is missing.
"""


def compile_engine(args: argparse.Namespace) -> Iterator[tuple[str, str, Path, Built]]:
    """Build and write one plan after the other: (stage, target, file, what was built).

    Raises:
        VisavisError: the library or the checkpoint cannot be had, a target is unknown, or a plan cannot be
            built or written.
    """
    library = LIBRARIES[args.backend]
    load_library(library)
    gpus = _gpus(library, args.target)
    loaded = load_checkpoint(args.checkpoint)
    stages = stages_of(loaded.model, gpu=True)
    checkpoint = f"{AVATAR_VERSION}-{loaded.fingerprint}"
    for name in args.stage or stages:
        if name not in stages:
            raise VisavisError(f"no stage is called {name!r}; choose from {', '.join(stages)}")
        stage, example = stages[name]
        maker = PlanMaker(library, name, stage, example)
        for gpu in gpus:
            built = maker.build(gpu.capability)
            key = plan_key(name, stage, example, checkpoint, library, gpu)
            try:
                path = write_plan(key, built.plan, args.out)
            except OSError as error:
                raise FileError(f"plans cannot be written to {args.out} ({error.strerror}); choose another") from error
            yield name, gpu.capability, path, built


def resolve_targets(library: LibraryName, asked: Sequence[str]) -> list[str]:
    """Compute capabilities by name or range (``sm_75..sm_89``), each once, in the library's order.

    Raises:
        EngineUnavailable: the library does not know one, or a range holds none.
    """
    known, wanted = targets_of(library), set()
    for target in asked:
        first, dots, last = target.partition("..")
        if dots:
            inside = [t for t in known if _number(first) <= _number(t) <= _number(last)]
            if not inside:
                raise EngineUnavailable(f"{library} builds for {', '.join(known)}, none of which is in {target}")
            wanted.update(inside)
        else:
            check_target(library, target)
            wanted.add(target)
    return [t for t in known if t in wanted]


def _gpus(library: LibraryName, asked: Sequence[str] | None) -> list[Gpu]:
    if library == "tensorrt" and asked:
        raise EngineUnavailable("tensorrt builds for the GPU of this machine only: leave --target out")
    if asked:
        return [Gpu(name=ANY, capability=target, driver=ANY) for target in resolve_targets(library, asked)]
    if not torch.cuda.is_available():
        known = targets_of(library)
        remedy = f"name a --target: {', '.join(known)}" if known else "run it where there is one"
        raise EngineUnavailable(f"torch sees no GPU here to build for; {remedy}")
    return [present_gpu(library)]


def _number(target: str) -> int:
    return int(target.removeprefix("sm_"))


def _target(text: str) -> str:
    if not re.fullmatch(r"sm_\d+(\.\.sm_\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no target; write sm_89, or sm_75..sm_120")
    return text


def format_report(made: Sequence[tuple[str, str, Built]]) -> str:
    """What goes in and out of each stage, and size and building time of its plan for each target."""
    first: dict[str, Built] = {}
    cells: dict[tuple[str, str], str] = {}
    for name, target, built in made:
        first.setdefault(name, built)
        cells[name, target] = f"{len(built.plan) / 1e6:.1f} MB {built.seconds:.1f} s"
    targets = list(dict.fromkeys(target for _, target, _ in made))
    bindings = [[name, _list(built.inputs), _list(built.outputs)] for name, built in first.items()]
    plans = [[name, *(cells.get((name, target)) for target in targets)] for name in first]
    return (
        format_table(["stage", "inputs", "outputs"], bindings)
        + "\n\n? is the batch, from the least to the most rows:\n"
        + "\n".join(f"{name}: {_batch(built)}" for name, built in first.items())
        + "\n\n"
        + format_table(["stage", *targets], plans)
    )


def _list(bindings: Sequence[Binding]) -> str:
    return ", ".join(map(str, bindings))


def _batch(built: Built) -> str:
    rows = [f"{b.name} {b.profile[0][0]}..{b.profile[-1][0]}" for b in built.inputs if b.profile]
    return ", ".join(rows) or "one row"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compile_engine",
        description="Build TensorRT plans of the engine's stages ahead of time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", type=_target, action="append", metavar="T", help="sm_89, or a range; repeatable")
    parser.add_argument(
        "--out", type=Path, default=plan_folder(), metavar="DIR", help="folder of the plans; default %(default)s"
    )
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, metavar="F", help="default: ours")
    parser.add_argument("--backend", default="tensorrt-rtx", choices=LIBRARIES, help="default %(default)s")
    parser.add_argument("--stage", action="append", metavar="NAME", help="this stage only; repeatable")
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    made = []
    for name, target, path, built in compile_engine(args):
        print(path, file=sys.stderr, flush=True)
        made.append((name, target, built))
    print(format_report(made))
    return 0


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
