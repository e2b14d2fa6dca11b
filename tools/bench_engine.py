"""Measure how fast an engine draws: streams of speech through ``Engine.step``, as the server calls it.

    python -m tools.bench_engine --seconds S --json F [--engine NAME] [--streams N] [--threads T]

Each step gives every stream 40 ms of new sound and takes one frame of each; everything a frame costs is in
it, the audio features too. Not in it: network, encoding, the visible mark.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools.files import read_bytes
from tools.report import describe_machine, format_table, percentiles, positive_int, positive_seconds, write_json
from tools.sound_file import read_mono

SAMPLE_SPEECH = DEFAULT_PORTRAIT.with_name("sample_speech.wav")
WARM_STEPS, LEAST_WARM_STEPS, WARM_S = 20, 3, 5.0  # a slow engine is not warmed up for minutes
EPILOG = """\
keys of the JSON file:
  fps            frames of all streams together per second of wall time, over --seconds
  fps_per_stream fps / streams; 25 is real time
  frame_ms       1000 / fps
  step_ms        {p50, p95, p99} of a whole step (all streams' frames), milliseconds
  stages_ms      STAGE -> {p50, p95, p99}: parts of a step as the engine reports them after each step
  enrol_ms       time to make the avatar of the portrait
  load_ms        time to load the engine
  engine, backend, fingerprint, streams, threads, frames, seconds, resident_mb, machine {cpu, cores, ...}

--threads T keeps the process on T processors and tells the engine so; without it the engine takes what it takes
in the server, which leaves a core to encoding. The first 20 steps (fewer of a slow engine) are not counted.
Speech is the sample that ships with the engine, each stream at its own place in it.
"""


def limit_threads(threads: int) -> None:
    """Keep this process on ``threads`` processors; call before an engine is made."""
    for name in ("VISAVIS_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[:threads])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def run_steps(engine: Engine, avatar: Avatar, speech: np.ndarray, *, streams: int, seconds: float) -> dict[str, Any]:
    """Step ``streams`` rows over and over for ``seconds``.

    Args:
        speech: float32 [n], at least one hop; repeated without end.

    Returns:
        fps, frames, seconds, step_ms and stages_ms as the epilog of --help says.
    """
    hop = engine.spec.hop_samples
    hops = speech[: len(speech) // hop * hop].reshape(-1, hop)
    state = engine.init_state(streams)
    for slot in range(streams):
        state.reset(slot, StreamOptions(seed=slot))
    offsets = np.arange(streams) * len(hops) // streams
    step_ms: list[float] = []
    stages_ms: dict[str, list[float]] = {}
    begun_s = end_s = time.perf_counter()
    step, warm = 0, False
    while not step_ms or end_s - begun_s < seconds:
        if not warm and (step >= WARM_STEPS or step >= LEAST_WARM_STEPS and end_s - begun_s > WARM_S):
            warm, begun_s = True, time.perf_counter()
        heard = hops[(offsets + step) % len(hops)]
        rows = [StepRow(slot=slot, avatar=avatar, samples=heard[slot]) for slot in range(streams)]
        before_s = time.perf_counter()
        frames = engine.step(rows, state)
        end_s = time.perf_counter()
        assert frames.shape[0] == streams
        if warm:
            step_ms.append((end_s - before_s) * 1000)
            for stage, ms in engine.stage_ms.items():
                stages_ms.setdefault(stage, []).append(ms)
        step += 1
    elapsed_s = end_s - begun_s
    return {
        "fps": round(len(step_ms) * streams / elapsed_s, 2),
        "frames": len(step_ms) * streams,
        "seconds": round(elapsed_s, 3),
        "step_ms": percentiles(step_ms),
        "stages_ms": {stage: percentiles(values) for stage, values in stages_ms.items()},
    }


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Load, enrol, step: the whole report.

    Raises:
        VisavisError: engine, portrait or speech cannot be had.
    """
    if args.threads:
        limit_threads(args.threads)
    portrait = read_bytes(args.portrait, "portrait")
    speech = read_mono(args.audio)
    begun_s = time.perf_counter()
    engine = create_engine(args.engine)
    loaded_s = time.perf_counter()
    if len(speech) < engine.spec.hop_samples:
        raise VisavisError(f"{args.audio.name} holds {len(speech)} samples, less than one frame's: give longer speech")
    if args.streams > engine.spec.max_batch:
        raise VisavisError(f"{args.streams} streams: the engine steps at most {engine.spec.max_batch}; ask for fewer")
    avatar = engine.enrol(portrait)
    enrolled_s = time.perf_counter()
    report: dict[str, Any] = {"engine": engine.spec.name, "backend": engine.backend, "fingerprint": engine.fingerprint}
    figures = run_steps(engine, avatar, speech, streams=args.streams, seconds=args.seconds)
    report |= {"fps": figures.pop("fps"), "fps_per_stream": None, "frame_ms": None, **figures}
    report["fps_per_stream"] = round(report["fps"] / args.streams, 2)
    report["frame_ms"] = round(1000 / report["fps"], 3)
    report |= {"load_ms": round((loaded_s - begun_s) * 1000, 1), "enrol_ms": round((enrolled_s - loaded_s) * 1000, 1)}
    report |= {"streams": args.streams, "threads": _count_threads(), "resident_mb": _resident_mb()}
    report["machine"] = describe_machine()
    engine.close()
    return report


def format_report(report: dict[str, Any]) -> str:
    machine = report["machine"]
    head = (
        f"{report['engine']} on {report['backend']}, {report['streams']} stream(s), {report['threads']} thread(s), "
        f"{machine['cpu']}\n{report['fps']:.1f} frames/s over {report['seconds']:.1f} s\n"
    )
    stages = {"whole step": report["step_ms"], **report["stages_ms"]}
    return head + format_table(["ms", "p50", "p95", "p99"], [[name, *p.values()] for name, p in stages.items()])


def _count_threads() -> int:
    """Threads that the engine may compute on: torch's where it is in use, else the usable processors."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    return int(describe_machine()["usable_cores"])


def _resident_mb() -> float:
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20, 1)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench_engine",
        description="Measure how many frames per second an engine draws.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=positive_seconds, required=True, metavar="S", help="how long to measure")
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument("--streams", type=positive_int, default=1, metavar="N", help="streams per step (default: 1)")
    parser.add_argument("--threads", type=positive_int, metavar="T", help="processors to use (default: as the server)")
    parser.add_argument(
        "--portrait", type=Path, default=DEFAULT_PORTRAIT, metavar="F", help="default: the built-in one"
    )
    parser.add_argument("--audio", type=Path, default=SAMPLE_SPEECH, metavar="F", help="default: the built-in speech")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        report = bench(args)
        write_json(args.json, report)
    except VisavisError as error:
        print(f"bench_engine: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
