"""Videos -> one picture of their frames side by side, each with its time; for looking at results.

python -m tools.contact_sheet a.mp4 b.mp4 --out sheet.png --every 5 --waveform
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.errors import AudioUnreadable, FileError
from tools.files import check_readable, replacing
from tools.sound_file import read_mono

PAPER, INK, FAINT, WAVE = (250, 250, 248), (40, 40, 40), (190, 190, 186), (64, 110, 160)
GAP_PX = 4
LABEL_PX = 15
WAVE_PX = 36
WAVE_RATE_HZ = 16_000
FRAMES_MAX = 400  # of one video on a sheet; more would be no picture to look at


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a sheet is laid out."""

    every: int = 5  # takes frames 0, every, 2 * every, ...
    start_s: float = 0.0
    columns: int = 10
    width_px: int = 128  # of one frame; its height follows
    waveform: bool = False  # a strip of sound under each frame: from its time to the next one's


@dataclass(frozen=True)
class Still:
    """One frame on the sheet."""

    time_s: float
    image: Image.Image


def draw_sheet(videos: Sequence[Path], layout: Layout) -> Image.Image:
    """The videos under each other, each with its name above its rows.

    Raises:
        FileError: a video that cannot be read, or that has no frames from ``start_s`` on.
    """
    parts = [_draw_video(video, layout) for video in videos]
    sheet = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def read_stills(video: Path, layout: Layout) -> tuple[list[Still], float]:
    """The chosen frames, made small, and the seconds from one to the next.

    Raises:
        FileError: as ``draw_sheet``.
    """
    check_readable(video, "video")
    stills: list[Still] = []
    try:
        with av.open(f"file:{video}") as container:
            if not container.streams.video:
                raise FileError(f"{str(video)!r} has no picture: give a video")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 25)
            first = None
            for index, frame in enumerate(container.decode(stream)):
                time_s = frame.time if frame.time is not None else index / fps
                first = index if first is None and time_s >= layout.start_s - 1e-6 else first
                if first is None or (index - first) % layout.every:
                    continue
                height = max(1, round(frame.height * layout.width_px / frame.width))
                size = (layout.width_px, height)
                stills.append(Still(time_s, frame.to_image().resize(size, Image.Resampling.LANCZOS)))
                if len(stills) == FRAMES_MAX:
                    break
    except av.FFmpegError as error:
        raise FileError(f"{str(video)!r} is no video that can be read: {error.strerror or error}") from error
    if not stills:
        raise FileError(f"{str(video)!r} has no frames from {layout.start_s:g} s on")
    return stills, layout.every / fps


def _draw_video(video: Path, layout: Layout) -> Image.Image:
    stills, step_s = read_stills(video, layout)
    sound = _read_sound(video) if layout.waveform else None
    cell_width = layout.width_px + GAP_PX
    cell_height = stills[0].image.height + LABEL_PX + (WAVE_PX if layout.waveform else 0) + GAP_PX
    columns = min(layout.columns, len(stills))
    rows = math.ceil(len(stills) / columns)
    part = Image.new("RGB", (columns * cell_width + GAP_PX, LABEL_PX + 2 * GAP_PX + rows * cell_height), PAPER)
    pen = ImageDraw.Draw(part)
    font = ImageFont.load_default(size=LABEL_PX - 4)
    pen.text((GAP_PX, GAP_PX), video.name, fill=INK, font=font)
    for place, still in enumerate(stills):
        left = GAP_PX + place % columns * cell_width
        top = LABEL_PX + 2 * GAP_PX + place // columns * cell_height
        part.paste(still.image, (left, top))
        top += still.image.height
        pen.text((left + 1, top), f"{still.time_s:.2f} s", fill=INK, font=font)
        if sound is not None:
            box = (left, top + LABEL_PX, left + cell_width, top + LABEL_PX + WAVE_PX)
            _draw_wave(pen, box, sound, still.time_s, step_s)
    return part


def _draw_wave(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], sound: np.ndarray, start_s: float, length_s: float
) -> None:
    """One column of pixels a peak, so that neighbouring strips join into one curve."""
    left, top, right, bottom = box
    middle, reach = (top + bottom) / 2, (bottom - top) / 2 - 1
    pen.line((left, middle, right - 1, middle), fill=FAINT)
    edges = (np.linspace(start_s, start_s + length_s, right - left + 1) * WAVE_RATE_HZ).astype(int)
    for x, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        stretch = sound[begin:end]
        if len(stretch):
            high, low = float(stretch.max()), float(stretch.min())
            pen.line((left + x, middle - reach * high, left + x, middle - reach * low), fill=WAVE)


def _read_sound(video: Path) -> np.ndarray | None:
    """float32 [n] scaled to its own peak, None where there is none."""
    try:
        sound = read_mono(video, WAVE_RATE_HZ)
    except AudioUnreadable:
        return None
    return sound / max(float(np.abs(sound).max()), 1e-4)


def build_parser() -> argparse.ArgumentParser:
    defaults = Layout()
    parser = argparse.ArgumentParser(prog="contact_sheet", description="Put frames of videos on one picture.")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--out", type=Path, required=True, help="PNG or JPEG to write")
    parser.add_argument(
        "--every", type=_count, default=defaults.every, help="take every Nth frame; default %(default)s"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at so many seconds")
    parser.add_argument("--columns", type=_count, default=defaults.columns, help="default %(default)s")
    parser.add_argument("--width", type=_count, default=defaults.width_px, help="of a frame in px; default %(default)s")
    parser.add_argument("--waveform", action="store_true", help="draw the sound under the frames")
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise FileError(f"cannot write {str(args.out)!r}: the name must end in .png or .jpg")
    layout = Layout(
        every=args.every, start_s=args.start, columns=args.columns, width_px=args.width, waveform=args.waveform
    )
    sheet = draw_sheet(args.videos, layout)
    with replacing(args.out, "picture") as temporary:
        sheet.save(temporary, format="PNG" if args.out.suffix.lower() == ".png" else "JPEG", quality=88)
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
