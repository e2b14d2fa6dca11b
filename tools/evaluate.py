"""Measure how well an engine's rendered lips follow real ones, and whether any portrait speaks any voice.

    python -m tools.evaluate --clips DIR --json F [--list FILE] [--limit N] [--sheets DIR] [--table F.md] [--jobs N]
    python -m tools.evaluate --portraits DIR --voices FILE... --sounds [FILE...] --json F

Clips: the first picture becomes the avatar and the clip's sound drives it (pose locked, one 40 ms hop at a time,
as live). Landmarks are found again on the rendered and on the real frames, and ``tools/clip_figures.py`` compares
the two. Portraits and sounds: ``tools/portrait_figures.py``. Every figure is told in --help.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from engine.cache import DEFAULT_PORTRAIT
from engine.errors import FileError, VisavisError
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools import portrait_figures
from tools.clip import ClipUnreadable, find_clips
from tools.clip_figures import evaluate_clip, mean_figures, sync_missing_reason
from tools.comparison_sheet import save_overview
from tools.engine_pool import EnginePool
from tools.figure_keys import EPILOG
from tools.figure_table import format_report
from tools.files import check_writable, replacing
from tools.lpips_figure import missing_reason as lpips_missing
from tools.portrait_figures import Sound
from tools.report import positive_int, positive_seconds, write_json

DEFAULT_VOICE = DEFAULT_PORTRAIT.parent / "sample_speech.wav"


def evaluate_clips(pool: EnginePool, paths: list[Path], sheets: Path | None) -> dict[str, Any]:
    """``clips``, ``mean`` and ``failed`` of the report."""
    done, failed = pool.run({path.name: partial(evaluate_clip, path, sheets) for path in paths}, "clip")
    clips = list(done.values())
    reasons = [{"clip": Path(name).stem, "reason": reason} for name, reason in failed.items()]
    return {"clips": clips, "mean": mean_figures(clips), "failed": reasons}


def evaluate_portraits(pool: EnginePool, paths: list[Path], voices: list[Sound], sheets: Path | None) -> dict[str, Any]:
    """``portraits`` of the report."""
    works = {path.name: partial(portrait_figures.measure_portrait, path, voices, sheets) for path in paths}
    done, failed = pool.run(works, "portrait")
    if sheets is not None and done:
        save_overview(sheets, [result.mouths for result in done.values()])
    entries = [entry for result in done.values() for entry in result.entries]
    return {
        "entries": entries,
        "mean": portrait_figures.sum_up_portraits(entries),
        "failed": [{"portrait": Path(name).stem, "reason": reason} for name, reason in failed.items()],
    }


def evaluate_sounds(pool: EnginePool, paths: list[Path], voices: list[Sound], sounds: list[Sound]) -> dict[str, Any]:
    """``sounds`` of the report."""
    works = {path.name: partial(portrait_figures.measure_sounds, path, voices, sounds) for path in paths}
    done, failed = pool.run(works, "portrait")
    entries = [entry for portrait in done.values() for entry in portrait]
    return {
        "entries": entries,
        "by_sound": portrait_figures.sum_up_sounds(entries),
        "failed": [{"portrait": Path(name).stem, "reason": reason} for name, reason in failed.items()],
    }


def note_missing() -> dict[str, str]:
    """Why a figure of clips cannot be had on this machine, by figure."""
    reasons = {"lpips": lpips_missing(), "sync": sync_missing_reason()}
    return {figure: reason for figure, reason in reasons.items() if reason}


def read_list(path: Path) -> list[str]:
    """Names, one a line; empty lines and ``#`` comments are skipped.

    Raises:
        ClipUnreadable: no such file, or no name in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClipUnreadable(f"the list {path} cannot be read ({error}); give a text file of names") from error
    names = [line.partition("#")[0].strip() for line in lines]
    if not any(names):
        raise ClipUnreadable(f"the list {path} names nothing; write one name a line")
    return [name for name in names if name]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate",
        description="Measure rendered lips against real ones, portraits that speak, and mouths that keep still.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure (one of them at least)")
    what.add_argument("--clips", type=Path, metavar="DIR", help="folder of videos with a face and sound")
    what.add_argument("--portraits", type=Path, metavar="DIR", help="folder of pictures, each to speak every voice")
    what.add_argument(
        "--sounds",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="that mouths keep still in silence (made here) and to these recordings without speech",
    )
    parser.add_argument("--list", type=Path, metavar="FILE", help="only the clips named there, one a line")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only N clips, spread evenly over the folder")
    parser.add_argument("--portrait-list", type=Path, metavar="FILE", help="only the portraits named there")
    parser.add_argument("--portrait-limit", type=positive_int, metavar="N", help="only N portraits, spread evenly")
    parser.add_argument(
        "--voices",
        type=Path,
        nargs="+",
        default=[DEFAULT_VOICE],
        metavar="FILE",
        help="recordings of speech for --portraits and --sounds (default: the sample that ships)",
    )
    parser.add_argument("--seconds", type=positive_seconds, default=3.0, help="of each voice (default: %(default)g)")
    parser.add_argument(
        "--sound-portraits",
        type=positive_int,
        default=4,
        metavar="N",
        help="portraits that --sounds is measured on, of --portraits, else the built-in one (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--table", type=Path, metavar="F.md", help="write the tables here too, as Markdown")
    parser.add_argument(
        "--sheets",
        type=Path,
        metavar="DIR",
        help="write pictures to look at: per clip real above rendered, NAME.png, and mouths at twice their size, "
        "NAME_mouth.png; portrait_NAME.png; portraits_mouths_1.png, ...: by voice the most shut and widest mouth",
    )
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="processes (default: 1)")
    return parser


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what would be silently without effect."""
    if args.clips is None and args.portraits is None and args.sounds is None:
        parser.error("nothing to measure: give --clips DIR, --portraits DIR or --sounds")
    if args.clips is None and (args.list or args.limit):
        parser.error("--list and --limit choose clips: give --clips DIR too (portraits have --portrait-list)")
    if args.portraits is None and (args.portrait_list or args.portrait_limit):
        parser.error("--portrait-list and --portrait-limit choose portraits: give --portraits DIR too")
    if args.seconds < 1:
        parser.error(f"--seconds {args.seconds:g} is too short to tell a moving mouth: give 1 or more")


def find_inputs(args: argparse.Namespace) -> tuple[list[Path], list[Path], list[Sound], list[Sound]]:
    """(clips, portraits, voices, sounds) that the arguments name, read before any work is done.

    Raises:
        VisavisError: one of them cannot be had, or an output not be written.
    """
    clips = find_clips(args.clips, read_list(args.list) if args.list else None, args.limit) if args.clips else []
    portraits, voices, sounds = [DEFAULT_PORTRAIT], [], []
    if args.portraits:
        names = read_list(args.portrait_list) if args.portrait_list else None
        portraits = portrait_figures.find_portraits(args.portraits, names, args.portrait_limit)
    if args.portraits or args.sounds is not None:
        voices = [portrait_figures.read_voice(path, args.seconds) for path in args.voices]
    if args.sounds is not None:
        silence = portrait_figures.make_silence(portrait_figures.SOUND_S)
        sounds = [silence, *(portrait_figures.read_sound(path) for path in args.sounds)]
    for name, given in (("voices", voices), ("sounds", sounds)):
        if len({sound.name for sound in given}) < len(given):
            raise FileError(f"two of the {name} have the same name: rename one, figures are kept by name")
    for path in (args.json, args.table):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path, "report")
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
    return clips, portraits, voices, sounds


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """The whole report.

    Raises:
        VisavisError: wrong arguments; what fails later is in the report.
    """
    clips, portraits, voices, sounds = find_inputs(args)
    engine = create_engine(args.engine)  # here too, so that what is wrong with it is said once and at once
    report: dict[str, Any] = {"engine": engine.spec.name, "fingerprint": engine.fingerprint, "backend": engine.backend}
    engine.close()
    with EnginePool(args.engine, args.jobs) as pool:
        report |= evaluate_clips(pool, clips, args.sheets)
        report["notes"] = note_missing() if clips else {}
        if args.portraits:
            report["portraits"] = evaluate_portraits(pool, portraits, voices, args.sheets)
            unusable = {entry["portrait"] for entry in report["portraits"]["failed"]}
            portraits = [path for path in portraits if path.stem not in unusable]
        if args.sounds is not None:
            chosen = portrait_figures.spread(portraits, args.sound_portraits)
            report["sounds"] = evaluate_sounds(pool, chosen, voices, sounds)
    return report


def list_failures(report: dict[str, Any]) -> list[str]:
    """A line for each clip or portrait that was left out."""
    parts = [report, *(report[part] for part in ("portraits", "sounds") if part in report)]
    return [f"left out {e.get('clip') or e['portrait']}: {e['reason']}" for part in parts for e in part["failed"]]


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    try:
        report = evaluate(args)
        write_json(args.json, report)
        tables = format_report(report)
        if args.table:
            with replacing(args.table, "table") as temporary:
                temporary.write_text(tables + "\n", encoding="utf-8")
    except VisavisError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(tables)
    for line in list_failures(report):
        print(line, file=sys.stderr)
    measured = report["clips"] or any(report.get(part, {}).get("entries") for part in ("portraits", "sounds"))
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
