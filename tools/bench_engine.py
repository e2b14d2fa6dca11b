"""Measure how fast an engine draws: streams of speech through ``Engine.step``, as the server calls it.

    python -m tools.bench_engine --seconds S --json F [--engine NAME] [--backend NAME] [--streams N] [--threads T]
                                 [--avatars A] [--avatar F] [--compare]

Each step gives every stream 40 ms of new sound and takes one frame of each; everything a frame costs is in
it, the audio features too. Not in it: network, encoding, the visible mark.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.api import Avatar, Engine
from engine.avatar_file import read_avatar
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import AvatarStale, VisavisError
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools.files import read_bytes
from tools.report import describe_machine, format_table, positive_int, positive_seconds, write_json
from tools.step_timing import StepTiming, take_turns

SAMPLE_SPEECH = DEFAULT_PORTRAIT.with_name("sample_speech.wav")
EPILOG = """\
keys of the JSON file:
  fps            frames of all streams together per second of wall time, over --seconds
  fps_per_stream fps / streams; 25 is real time
  frame_ms       1000 / fps
  step_ms        {p50, p95, p99} of a whole step (all streams' frames), milliseconds
  stages_ms      STAGE -> {p50, p95, p99}: parts of a step as the engine reports them after each step
  enrol_ms       time to make the avatar of the portrait; null with --avatar
  load_ms        time to load the engine
  avatars        different ones among the streams
  engine, backend, fingerprint, streams, threads, frames, seconds, resident_mb, machine {cpu, cores, ...}
  and with --compare:
  reference      our own model without short cuts, in eager PyTorch, measured in the same run: fps, frames, seconds,
                 step_ms, stages_ms as above (its stage "identity" is what the engine keeps per avatar and the
                 reference works out anew for every frame), backend, and what, in words, is computed per frame
  speedup        fps / reference.fps
  speedup_identity_kept   the same had the reference kept F_agg, depth map, masks and lids per avatar: the medians of
                 its steps without "identity" against the engine's
  speedup_rounds the ratio of each pair of rounds: how steady it is

--threads T keeps the process on T processors and tells the engine so; without it the engine takes what it takes
in the server. The first 20 steps (fewer of a slow engine) are not counted.
With --compare, engine and reference take turns of about a second until each had --seconds.
Speech is the sample that ships with the engine, each stream at its own place in it. --avatars A gives the streams
A avatars in turn, alike but for where they lie, as an engine that keeps them on a GPU cares. --avatar F takes one
that was enrolled before (a file of ``visavis enrol``'s folder), where MediaPipe is missing.
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


def run_steps(
    engine: Engine, avatar: Avatar | Sequence[Avatar], speech: np.ndarray, *, streams: int, seconds: float
) -> dict[str, Any]:
    """Step ``streams`` rows over and over for ``seconds``: the figures of ``StepTiming``, warmed up."""
    timing = StepTiming(engine, avatar, speech, streams=streams)
    timing.warm_up()
    timing.run(seconds)
    return timing.figures()


def run_beside_reference(
    engine: Engine,
    avatar: Avatar | Sequence[Avatar],
    portrait: bytes,
    speech: np.ndarray,
    *,
    streams: int,
    seconds: float,
) -> dict[str, Any]:
    """As ``run_steps``, in turn with the unbaked path on the same portrait and speech.

    Raises:
        VisavisError: the engine has no unbaked path.
    """
    if engine.spec.name != "s3dnerf":
        raise VisavisError(f"--compare: the {engine.spec.name} engine has no unbaked path; only s3dnerf has one")
    from engine.s3dnerf.unbaked import WHAT, UnbakedEngine  # torch only where it is wanted

    reference = UnbakedEngine()
    timings = [
        StepTiming(engine, avatar, speech, streams=streams),
        StepTiming(reference, reference.enrol(portrait), speech, streams=streams),
    ]
    ratios = [given / wanted for given, wanted in take_turns(timings, seconds)]
    figures, beside = (timing.figures() for timing in timings)
    kept_ms = beside["step_ms"]["p50"] - beside["stages_ms"]["identity"]["p50"]
    return figures | {
        "reference": beside | {"backend": reference.backend, "what": WHAT},
        "speedup": round(timings[0].fps / timings[1].fps, 3),
        "speedup_identity_kept": round(kept_ms / figures["step_ms"]["p50"], 3),
        "speedup_rounds": [round(ratio, 3) for ratio in ratios],
    }


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Load, enrol, step: the whole report.

    Raises:
        VisavisError: engine, portrait or speech cannot be had.
    """
    if args.threads:
        limit_threads(args.threads)
    if args.backend:
        os.environ["VISAVIS_BACKEND"] = args.backend
    portrait = read_bytes(args.portrait, "portrait")
    speech = read_speech(args.audio)
    begun_s = time.perf_counter()
    engine = create_engine(args.engine)
    loaded_s = time.perf_counter()
    if len(speech) < engine.spec.hop_samples:
        raise VisavisError(f"{args.audio.name} holds {len(speech)} samples, less than one frame's: give longer speech")
    if args.streams > engine.spec.max_batch:
        raise VisavisError(f"{args.streams} streams: the engine steps at most {engine.spec.max_batch}; ask for fewer")
    avatar = engine.enrol(portrait) if args.avatar is None else read_enrolled(args.avatar, engine)
    enrolled_s = time.perf_counter()
    avatars = [dataclasses.replace(avatar) for _ in range(args.avatars)]
    report: dict[str, Any] = {"engine": engine.spec.name, "backend": engine.backend, "fingerprint": engine.fingerprint}
    if args.compare:
        figures = run_beside_reference(engine, avatars, portrait, speech, streams=args.streams, seconds=args.seconds)
    else:
        figures = run_steps(engine, avatars, speech, streams=args.streams, seconds=args.seconds)
    report |= {"fps": figures.pop("fps"), "fps_per_stream": None, "frame_ms": None, **figures}
    report["fps_per_stream"] = round(report["fps"] / args.streams, 2)
    report["frame_ms"] = round(1000 / report["fps"], 3)
    enrol_ms = round((enrolled_s - loaded_s) * 1000, 1) if args.avatar is None else None
    report |= {"load_ms": round((loaded_s - begun_s) * 1000, 1), "enrol_ms": enrol_ms}
    report |= {
        "streams": args.streams,
        "avatars": args.avatars,
        "threads": engine.threads,
        "resident_mb": _resident_mb(),
    }
    report["machine"] = describe_machine()
    engine.close()
    return report


def read_speech(path: Path) -> np.ndarray:
    """A sound file as float32 [n] at 16 kHz, mono. The sample's format needs no decoder, which may be missing.

    Raises:
        FileError, AudioUnreadable: as ``tools.sound_file.read_mono``.
    """
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2):
                return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    except (OSError, EOFError, wave.Error):
        pass  # read_mono says what is wrong, or reads it
    from tools.sound_file import read_mono

    return read_mono(path)


def read_enrolled(path: Path, engine: Engine) -> Avatar:
    """An avatar from its file.

    Raises:
        AvatarError: there is none, it is damaged, or made by another engine or checkpoint.
    """
    avatar = read_avatar(path).avatar
    if avatar is None or (avatar.engine, avatar.fingerprint) != (engine.spec.name, engine.fingerprint):
        raise AvatarStale(f"the avatar in {path} is not of {engine.spec.name} {engine.fingerprint}: enrol it again")
    return avatar


def format_report(report: dict[str, Any]) -> str:
    machine = report["machine"]
    head = (
        f"{report['engine']} on {report['backend']}, {report['streams']} stream(s), {report['threads']} thread(s), "
        f"{machine['cpu']}\n{report['fps']:.1f} frames/s over {report['seconds']:.1f} s\n"
    )
    text = head + _format_stages(report)
    if "reference" in report:
        reference = report["reference"]
        text += (
            f"\n\nbeside it, {reference['what']}:\n{reference['fps']:.1f} frames/s; {report['speedup']:.2f} times as "
            f"fast is the engine ({report['speedup_identity_kept']:.2f} had the reference kept what is the avatar's)\n"
            + _format_stages(reference)
        )
    return text


def _format_stages(report: dict[str, Any]) -> str:
    stages = {"whole step": report["step_ms"], **report["stages_ms"]}
    return format_table(["ms", "p50", "p95", "p99"], [[name, *p.values()] for name, p in stages.items()])


def _resident_mb() -> float:
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20, 1)


def _backend(name: str) -> str:
    from engine.compile import BACKENDS  # torch only where it is wanted

    if name not in BACKENDS:
        raise argparse.ArgumentTypeError(f"no backend is called {name!r}; choose one of {', '.join(BACKENDS)}")
    return name


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
    parser.add_argument("--backend", type=_backend, metavar="NAME", help="what computes (default: as the server)")
    parser.add_argument("--streams", type=positive_int, default=1, metavar="N", help="streams per step (default: 1)")
    parser.add_argument("--threads", type=positive_int, metavar="T", help="processors to use (default: as the server)")
    parser.add_argument("--avatars", type=positive_int, default=1, metavar="A", help="different ones (default: 1)")
    parser.add_argument("--avatar", type=Path, metavar="F", help="a kept avatar's file, instead of --portrait")
    parser.add_argument("--compare", action="store_true", help="measure our own eager, unbaked path in the same run")
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
