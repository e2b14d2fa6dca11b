"""Turn folders of talking-face videos, or of still portraits, into training clips.

    python -m tools.prepare_data --videos DIR --out DIR [--jobs N]
    python -m tools.prepare_data --portraits DIR --out DIR --basis CLIPS/lip_motion.npz

Every clip becomes one ``NAME.npz``:

    frames      uint8 [bytes], the aligned 256x256 crops at 25 fps as JPEGs, one behind the other
    offsets     int64 [n + 1], where each JPEG begins
    landmarks   float32 [n, 478, 3] in crop coordinates
    poses       float32 [n, 3, 4], R and t that lay each frame on the clip's mean face
    eyes        float32 [n], how far the lids are open: 0.3 open, 0.05 shut
    brows       float32 [n], height of the brows in eye distances
    sound       int16 [640 n], 16 kHz mono, sample 0 at frame 0
    speech      float32 [words, 2], seconds, where a GRID ``.align`` file stands beside the video
    sync        float32 [31], correlation of lips and sound with the lips 15 frames early .. 15 late
    speaker     whose clips these are, as far as files' places tell
    made        what the file was made of and how, so that another run knows it again

Beside them ``lip_motion.npz`` holds the basis of the lip-motion codes and ``codes.npz`` the codes of all
clips. Masks of face, lips and mouth are filled from the landmarks when ``tools.training.clips`` is asked.

Clips in subfolders are named after their path (``M003__video__front__angry__level_1__001``), parts of a
long video by number (``NAME__000``). MEAD's and HDTF's folders work as they come
(``tools/prepare/sources.py``). What cannot be used is listed with its reason in ``left_out.json``. Clips
that are there already are not made again, so an interrupted run goes on where it was; a file of an older
version or of other settings is made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
from tqdm import tqdm

from tools.prepare import Unusable
from tools.prepare.clip_file import Settings, make_clip, read_stamp, stamp_of
from tools.prepare.media import read_sound as read_sound
from tools.prepare.sources import IMAGE_ENDINGS, MEAD_VIEWS, VIDEO_ENDINGS, Source, find_portraits, find_videos
from tools.prepare.whole_set import find_late_speakers, write_codes
from tools.training.clips import BASIS_FILE, CODES_FILE, read_basis

LEFT_OUT_FILE = "left_out.json"


def make_or_refuse(source: Source, out: Path, settings: Settings) -> str | None:
    """Make a clip; returns the reason where it cannot be used, its file then being gone."""
    try:
        make_clip(source, out, settings)
        return None
    except Unusable as error:
        reason = str(error)
    except Exception as error:  # one strange file must not end a night's run
        reason = f"unexpected {type(error).__name__}: {error}"
    (out / f"{source.name}.npz").unlink(missing_ok=True)
    return reason


def make_all(sources: list[Source], out: Path, settings: Settings, jobs: int) -> Iterator[tuple[Source, str | None]]:
    """Clips as they are done, with the reason of those left out.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    make = partial(make_or_refuse, out=out, settings=settings)
    if jobs == 1:
        yield from ((source, make(source)) for source in sources)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin_process) as pool:
        try:
            running = {pool.submit(make, source): source for source in sources}
            for done in as_completed(running):
                yield running[done], done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; a clip under way is finished
    cv2.setNumThreads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MediaPipe's notes would run through the progress bar


class LeftOut:
    """``left_out.json``: what was not used and why, kept from run to run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEFT_OUT_FILE
        self.rows: dict[str, dict[str, str]] = {}
        try:
            self.rows = {row["name"]: row for row in json.loads(self._path.read_text())}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # none yet, or none that can be read: those clips are tried once more

    def add(self, source: Source, reason: str, stamp: str) -> None:
        self.rows[source.name] = {"name": source.name, "file": source.file, "reason": reason, "made": stamp}

    def knows(self, source: Source, stamp: str) -> bool:
        return self.rows.get(source.name, {}).get("made") == stamp

    def write(self) -> None:
        rows = [self.rows[name] for name in sorted(self.rows)]
        part = self._path.with_name(f"{self._path.name}.part")
        part.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        os.replace(part, self._path)


def prepare(sources: list[Source], out: Path, settings: Settings, jobs: int, basis: Path | None) -> tuple[int, LeftOut]:
    """Make what is not there yet, judge speakers, write the codes: number of clips, and what was left out."""
    out.mkdir(parents=True, exist_ok=True)
    for part in out.glob("*.part"):
        part.unlink()  # of a run that was killed
    left_out = LeftOut(out)
    stamps = {source.name: stamp_of(source, settings) for source in sources}
    remove_recut(out, sources)
    there = {source.name: read_stamp(out / f"{source.name}.npz") for source in sources}
    wanted = [
        source
        for source in sources
        if there[source.name] != stamps[source.name] and not left_out.knows(source, stamps[source.name])
    ]
    if older := sum(there[source.name] is not None for source in wanted):
        print(f"{older} clips were made by an older version, with other settings or of another file: made anew")
    try:
        for source, reason in tqdm(make_all(wanted, out, settings, jobs), total=len(wanted), unit="clip"):
            left_out.rows.pop(source.name, None)
            if reason is not None:
                left_out.add(source, reason, stamps[source.name])
        made = [source for source in sources if (out / f"{source.name}.npz").exists()]
        if settings.sync_check:
            late = find_late_speakers(out, [source.name for source in made])
            for source in made:
                if source.name in late:
                    left_out.add(source, late[source.name], stamps[source.name])
                    (out / f"{source.name}.npz").unlink()
    finally:
        left_out.write()
    files = (path for path in out.glob("*.npz") if path.name not in (BASIS_FILE, CODES_FILE))
    names = sorted(path.stem for path in files if read_stamp(path))
    if names:
        write_codes(out, names, basis)
    return len(names), left_out


def remove_recut(out: Path, sources: list[Source]) -> None:
    """Remove clips of these videos that other settings cut and named in another way."""
    names, files = {source.name for source in sources}, {source.file for source in sources}
    for path in out.glob("*.npz"):
        if path.stem not in names and path.name not in (BASIS_FILE, CODES_FILE):
            stamp = read_stamp(path)
            if stamp and json.loads(stamp)["file"] in files:
                print(f"{path.name} was cut with other settings: removed")
                path.unlink()


def find_sources(args: argparse.Namespace) -> list[Source]:
    if args.portraits:
        return find_portraits(args.portraits)
    sources, others = find_videos(args.videos, views=set(args.views), max_s=args.max_s, annotations=args.annotations)
    if others:
        print(f"{others} videos show another view than {', '.join(args.views)} and are not used (--views)")
    return sources


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", type=Path, help="folder of talking-face videos, searched in depth")
    source.add_argument("--portraits", type=Path, help="folder of still portraits, searched in depth")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; 1 works in this one")
    parser.add_argument("--max-s", type=float, default=60.0, help="longer videos become several clips (default: 60)")
    parser.add_argument("--views", nargs="+", choices=sorted(MEAD_VIEWS), default=["front"], help="of MEAD")
    parser.add_argument("--annotations", type=Path, help="folder of HDTF's *_annotion_time.txt (default: --videos)")
    parser.add_argument("--basis", type=Path, help="lip_motion.npz to make codes with (default: fitted on the clips)")
    parser.add_argument("--no-sync-check", action="store_true", help="keep clips whose sound and lips disagree")
    args = parser.parse_args(argv)
    folder = args.videos or args.portraits
    for path in (folder, args.annotations, args.basis):
        if path is not None and not path.exists():
            parser.error(f"{path} does not exist")
    if not folder.is_dir():
        parser.error(f"{folder} is a file; give the folder it lies in")
    if args.jobs < 1 or args.max_s < 2:
        parser.error(f"--jobs {args.jobs} must be 1 or more, --max-s {args.max_s:g} must be 2 or more")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.basis is not None:
            read_basis(args.basis)  # before the work, not after it
        sources = find_sources(args)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not sources:
        endings = VIDEO_ENDINGS if args.videos else IMAGE_ENDINGS
        print(f"{args.videos or args.portraits}: no file ends in {', '.join(sorted(endings))}", file=sys.stderr)
        return 2
    settings = Settings(max_s=args.max_s, sync_check=not args.no_sync_check)
    try:
        count, left_out = prepare(sources, args.out, settings, args.jobs, args.basis)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print("a process was killed, perhaps for want of memory: run again with fewer --jobs", file=sys.stderr)
        return 1
    print(f"{count} clips in {args.out}, {len(left_out.rows)} left out ({LEFT_OUT_FILE})")
    for row in left_out.rows.values():
        print(f"  {row['file']}: {row['reason']}")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
