"""``visavis render``: portrait + sound -> a video of the portrait saying it."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.api import Avatar, Engine, StepRow, StreamOptions
from engine.cache import DEFAULT_AVATAR_ID, DEFAULT_PORTRAIT
from engine.errors import EngineUnavailable, FileError
from engine.mark import stamp
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools.files import check_writable, read_bytes, replacing
from tools.paste_back import PasteBack
from tools.sound_file import MonoStream, SoundBlock, SoundFile
from tools.video_file import new_mp4


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """What to render."""

    portrait: Path  # a picture, or the word "default"
    audio: Path
    out: Path
    engine: str = DEFAULT_ENGINE
    full: bool = False  # the whole photo instead of the aligned view
    options: StreamOptions = StreamOptions()
    marked: bool = True


@dataclass(frozen=True, kw_only=True)
class RenderReport:
    """What was rendered and how fast."""

    frames: int
    seconds: float  # of the sound
    fps: float  # frames drawn, pasted, encoded and written per second of wall time
    engine: str
    backend: str
    stages_ms: dict[str, float]  # mean of a frame; "step" is the engine's whole, its stages follow
    width: int
    height: int
    enrol_ms: float
    damaged_packets: int  # of the sound, left out


def render(job: RenderJob, *, progress: bool = False) -> RenderReport:
    """Make the video. ``job.out`` is complete or untouched.

    Raises:
        FileError: a path that cannot be read or written.
        AudioUnreadable, PortraitError, CheckpointError, EngineUnavailable: as they say.
    """
    picture = _check_paths(job)
    with ExitStack() as stack:
        sound = stack.enter_context(SoundFile(job.audio))
        engine = create_engine(job.engine)
        stack.callback(engine.close)
        began_s = time.perf_counter()
        avatar = engine.enrol(picture)
        enrol_ms = (time.perf_counter() - began_s) * 1000
        paster = _paster(avatar, picture) if job.full else None
        width, height = paster.size if paster else (engine.spec.frame_size,) * 2
        video = stack.enter_context(new_mp4(job.out, width=width, height=height, fps=engine.spec.fps))
        stages = _Stages()

        def hear() -> Iterator[SoundBlock]:
            for block in sound.blocks():
                with stages.measure("sound"):
                    video.write_sound(block)
                yield block

        speech = _Speech(hear(), engine.spec.sample_rate_hz)
        frames = 0
        with _progress_bar(job, sound.expected_seconds, engine.spec.fps, progress) as bar:
            began_s = time.perf_counter()
            for frame in draw_frames(engine, avatar, speech, job.options, stages):
                with stages.measure("paste"):
                    frame = paster.paste(frame) if paster else frame
                    frame = stamp(frame) if job.marked else frame
                with stages.measure("encode"):
                    video.write_frame(frame)
                frames += 1
                bar.update()
            wall_s = time.perf_counter() - began_s
            bar.total = frames
        return RenderReport(
            frames=frames,
            seconds=float(speech.seconds),
            fps=round(frames / wall_s, 2),
            engine=engine.spec.name,
            backend=engine.backend,
            stages_ms=stages.means(frames),
            width=width,
            height=height,
            enrol_ms=round(enrol_ms, 1),
            damaged_packets=sound.damaged_packets,
        )


def draw_frames(
    engine: Engine, avatar: Avatar, speech: _Speech, options: StreamOptions, stages: _Stages
) -> Iterator[np.ndarray]:
    """Frames 0, 1, ... up to the sound's end, uint8 [S, S, 3]; frame k stands at k / fps seconds of it.

    The lookahead's hops go in first, in one step; silence follows the sound until the last frame is out.
    """
    spec = engine.spec
    state = engine.init_state(1)
    state.reset(0, options)
    hops = drawn = 0
    while True:
        count = 1 if hops else max(1, spec.lookahead_hops)
        samples = speech.take(count * spec.hop_samples)
        if speech.ended and drawn >= math.ceil(speech.seconds * spec.fps):
            return
        with stages.measure("step"):
            (frame,) = engine.step([StepRow(slot=0, avatar=avatar, samples=samples)], state)
        stages.add(engine.stage_ms)
        hops += count
        while drawn <= spec.frame_after(hops):  # more than one only where an engine has no lookahead
            if speech.ended and drawn >= math.ceil(speech.seconds * spec.fps):
                return
            drawn += 1
            yield frame


class _Speech:
    """Blocks of any rate -> as many mono samples as asked for; silence after the end."""

    def __init__(self, blocks: Iterator[SoundBlock], rate_hz: int) -> None:
        self._blocks = blocks
        self._mono = MonoStream(rate_hz)
        self._ready = np.zeros(0, np.float32)
        self.seconds = Fraction(0)  # of sound so far, by the file's own rate
        self.ended = False

    def take(self, count: int) -> np.ndarray:
        """float32 [count]."""
        while len(self._ready) < count and not self.ended:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
                more = self._mono.flush()
            else:
                self.seconds += block.seconds
                more = self._mono.push(block)
            self._ready = np.concatenate([self._ready, more])
        taken, self._ready = self._ready[:count], self._ready[count:]
        return np.pad(taken, (0, count - len(taken)))


class _Stages:
    """Milliseconds by stage, summed over a render."""

    def __init__(self) -> None:
        self._sums_ms: defaultdict[str, float] = defaultdict(float)

    def measure(self, stage: str) -> _Span:
        return _Span(self._sums_ms, stage)

    def add(self, stages_ms) -> None:
        for stage, ms in stages_ms.items():
            self._sums_ms[f"step.{stage}"] += ms

    def means(self, frames: int) -> dict[str, float]:
        return {stage: round(ms / max(1, frames), 3) for stage, ms in self._sums_ms.items()}


class _Span:
    def __init__(self, sums_ms: defaultdict[str, float], stage: str) -> None:
        self._sums_ms, self._stage = sums_ms, stage

    def __enter__(self) -> None:
        self._began_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._sums_ms[self._stage] += (time.perf_counter() - self._began_s) * 1000


def _progress_bar(job: RenderJob, expected_s: float | None, fps: int, shown: bool) -> tqdm:
    total = math.ceil(expected_s * fps) if expected_s else None
    return tqdm(total=total, desc=job.out.name, unit="frame", disable=not shown, dynamic_ncols=True)


def _check_paths(job: RenderJob) -> bytes:
    """The portrait's bytes, once it is clear that the video may be written where it is wanted."""
    if job.out.suffix.lower() != ".mp4":
        raise FileError(f"cannot write {str(job.out)!r}: the video is an mp4, so its name must end in .mp4")
    portrait = DEFAULT_PORTRAIT if str(job.portrait) == DEFAULT_AVATAR_ID else job.portrait
    picture = read_bytes(portrait, "portrait")
    for source in (portrait, job.audio):
        if job.out.exists() and source.exists() and job.out.samefile(source):
            raise FileError(f"the video would replace its own source {str(source)!r}: choose another name")
    check_writable(job.out, "video")
    return picture


def _paster(avatar: Avatar, picture: bytes) -> PasteBack:
    from engine.image import read_photo

    if "photo_from_crop" not in avatar.arrays:
        raise EngineUnavailable(
            f"the engine {avatar.engine!r} does not tell where its view lies in the photo: leave --full out"
        )
    return PasteBack(read_photo(picture).pixels, avatar.crop, avatar.arrays["photo_from_crop"])


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="visavis render",
        description="Make a video of a portrait speaking a sound file: H.264 and AAC in an mp4, 25 frames a second.",
        epilog="The mp4 says in its metadata that it is synthetic, also with --unmarked.",
    )
    parser.add_argument(
        "--portrait",
        type=Path,
        required=True,
        help='JPEG, PNG or WebP with one face, or "default" for the built-in one',
    )
    parser.add_argument(
        "--audio", type=Path, required=True, help="any audio or video file; its sound goes in unchanged"
    )
    parser.add_argument("--out", type=Path, required=True, help="the mp4 to write")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, help=f"{' or '.join(engine_names())}; default %(default)s")
    parser.add_argument("--json", type=Path, help='write frames, speed and stage times here; "-" prints them')
    parser.add_argument(
        "--full", action="store_true", help="the whole photo (at most 1920 px) instead of the 256 px view"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the idle motion; default %(default)s")
    parser.add_argument("--motion", type=_amount, default=1.0, help="head sway and blinks, 0 to 1; default %(default)s")
    parser.add_argument("--unmarked", action="store_true", help='leave out the visible "AI" mark')
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse(argv)
    job = RenderJob(
        portrait=args.portrait,
        audio=args.audio,
        out=args.out,
        engine=args.engine,
        full=args.full,
        options=StreamOptions(seed=args.seed, motion=args.motion),
        marked=not args.unmarked,
    )
    with ExitStack() as stack:
        # Opened first: a report that cannot be written is told before the work, not after.
        to_file = args.json is not None and str(args.json) != "-"
        report_path = stack.enter_context(replacing(args.json, "report")) if to_file else None
        report = render(job, progress=not args.quiet)
        text = json.dumps(asdict(report), indent=2) + "\n"
        if report_path is not None:
            report_path.write_text(text)
    if args.json is not None and not to_file:
        sys.stdout.write(text)
    if report.damaged_packets:
        print(f"visavis: {report.damaged_packets} damaged packets of the sound were left out", file=sys.stderr)
    return 0


def _amount(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
