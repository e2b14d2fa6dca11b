"""Measure how well an engine's rendered lips follow real ones, on talking-face videos.

    python -m tools.evaluate --clips DIR --json F [--engine NAME] [--limit N] [--list FILE] [--sheets DIR] [--jobs N]

For each clip the first picture becomes the avatar and the clip's sound drives it (pose locked, one 40 ms
hop at a time, as live). Landmarks are found again on the rendered and on the real frames, and the
figures of ``tools/lip_figures.py`` compare the two.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from engine.api import Engine, StepRow, StreamOptions
from engine.errors import VisavisError
from engine.image import sample
from engine.landmarks import CROP_SIZE, FaceMesh
from engine.portrait import read_portrait
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from tools import lip_figures
from tools.clip import ClipUnreadable, encode_png, find_clips, read_frames, read_samples
from tools.report import format_table as report_table
from tools.report import positive_int, write_json

EPILOG = """\
keys of the JSON file:
  engine, fingerprint, backend   what was measured
  clips      a list with one entry per clip (its name under "clip"), with the figures below
  mean       the same figures, each the mean over the clips that have it, and "count", the clips measured
  failed     a list of {clip, reason}: clips that could not be measured; they are in no mean

figures, per clip and in mean (null where there is none, e.g. no face on the rendered frames):
  mouth_corr         Pearson's correlation at lag 0 of the inner-lip opening (landmarks 13, 14), rendered : real
  lag_frames         shift within +-5 frames at which it correlates best; positive: the rendered mouth is late
  m_lmd              mean distance of the 40 lip points, their centroid taken out, pixels of the 256 px crop
  f_lmd              mean distance of the 468 face points, pixels
  ssim, psnr         rendered frames against real ones in the same crop (not aligned to each other); psnr in dB
  m_lmd_still, f_lmd_still, ssim_still, psnr_still   the same for the anchor: the first real frame, held
  opening_std_ratio  standard deviation of the opening, rendered / real
  faces_found        rendered frames in which a face is found
  frames             frames rendered

Landmarks are MediaPipe's 478, found again on every frame; each frame is first moved rigidly, with scale, onto
the clip's first real frame over points that speech does not move. Real frames are cropped by their clip's
first frame, as enrolment crops it. The landmark tracker sees the first frame five times before it counts, so
that the still anchor is what a held picture would measure. Figures of lips and face are over frames with a face
on both sides.

exit status: 0 when at least one clip was measured, 1 when none could be, 2 for wrong arguments.
"""

SETTLE_FRAMES = 5  # the tracker's first fit, from the detector's box, is some tenths of a pixel off
COLUMNS = ["mouth_corr", "lag_frames", "m_lmd", "f_lmd", "ssim", "psnr", "opening_std_ratio", "faces_found", "frames"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Rendered and real frames of one clip, [N, S, S, 3] uint8 each."""

    rendered: np.ndarray
    real: np.ndarray


def crop_frames(path: Path, size: int) -> tuple[bytes, np.ndarray]:
    """A clip's first picture as PNG, and all of its pictures in the crop that enrolment makes of the first.

    Returns:
        the portrait, and uint8 [N, size, size, 3].

    Raises:
        ClipUnreadable: it cannot be read.
        PortraitError: its first picture cannot become an avatar.
    """
    pictures = read_frames(path)
    first = next(pictures)
    png = encode_png(first)
    portrait = read_portrait(png)
    crop_from_photo = cv2.invertAffineTransform(portrait.photo_from_crop.astype(np.float64)) * size / CROP_SIZE
    return png, np.stack([sample(picture, crop_from_photo, size) for picture in chain([first], pictures)])


def render_frames(engine: Engine, portrait: bytes, samples: np.ndarray, count: int) -> np.ndarray:
    """Frames 0 ... count - 1 of a portrait that speaks ``samples``, pose locked; uint8 [count, S, S, 3]."""
    spec = engine.spec
    padded = np.zeros((count + spec.lookahead_hops - 1) * spec.hop_samples, np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    avatar, state = engine.enrol(portrait), engine.init_state(1)
    state.reset(0, StreamOptions(seed=0, motion=0.0))
    frames = []
    for hop, heard in enumerate(padded.reshape(-1, spec.hop_samples), start=1):
        frame = engine.step([StepRow(slot=0, avatar=avatar, samples=heard)], state)[0]
        if spec.frame_after(hop) >= 0:
            frames.append(frame)
    return np.stack(frames)


def find_landmarks(frames: np.ndarray) -> np.ndarray:
    """Landmarks in crop coordinates, float32 [N, 478, 3]; all NaN where no face is found."""
    mesh = FaceMesh(video=True)
    for _ in range(SETTLE_FRAMES):
        mesh.find(frames[0])
    landmarks = np.full((len(frames), 478, 3), np.nan, np.float32)
    for index, frame in enumerate(frames):
        for face in mesh.find(frame)[:1]:
            landmarks[index] = face * 2 / frame.shape[0] - np.array([1, 1, 0])
    mesh.close()
    return landmarks


def measure_pair(pair: Pair) -> dict[str, Any]:
    """All figures of one clip (see the epilog of --help)."""
    real, rendered = find_landmarks(pair.real), find_landmarks(pair.rendered)
    faces = int(lip_figures.found_frames(rendered).sum())
    if not lip_figures.found_frames(real)[0]:
        raise ClipUnreadable("no face found on the first picture's crop; leave the clip out")
    first = real[0]
    real, rendered = (lip_figures.align_landmarks(x, first) for x in (real, rendered))
    still = np.broadcast_to(first, real.shape)
    still_frames = np.broadcast_to(pair.real[0], pair.real.shape)
    opening, opening_real = lip_figures.opening_px(rendered), lip_figures.opening_px(real)
    return {
        "mouth_corr": lip_figures.correlate(opening, opening_real),
        "lag_frames": lip_figures.find_lag(opening, opening_real),
        "m_lmd": lip_figures.lip_distance_px(rendered, real),
        "m_lmd_still": lip_figures.lip_distance_px(still, real),
        "f_lmd": lip_figures.face_distance_px(rendered, real),
        "f_lmd_still": lip_figures.face_distance_px(still, real),
        "ssim": lip_figures.mean_ssim(pair.rendered, pair.real),
        "ssim_still": lip_figures.mean_ssim(still_frames, pair.real),
        "psnr": lip_figures.mean_psnr_db(pair.rendered, pair.real),
        "psnr_still": lip_figures.mean_psnr_db(still_frames, pair.real),
        "opening_std_ratio": lip_figures.std_ratio(opening, opening_real),
        "faces_found": faces,
        "frames": len(pair.real),
    }


def mean_figures(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of each figure over the clips that have it; ``None`` where none has."""
    mean: dict[str, Any] = {"count": len(clips)}
    for key in [k for k in (clips[0] if clips else {}) if k != "clip"]:
        known = [c[key] for c in clips if c[key] is not None]
        mean[key] = float(np.mean(known)) if known else None
    return mean


def draw_sheet(pair: Pair, columns: int = 8) -> np.ndarray:
    """Evenly spread frames, real above rendered: uint8 [2 S, columns S, 3]."""
    picks = np.linspace(0, len(pair.real) - 1, min(columns, len(pair.real))).round().astype(int)
    return np.concatenate([np.concatenate(list(x[picks]), 1) for x in (pair.real, pair.rendered)], 0)


def evaluate_clip(engine: Engine, path: Path, sheets: Path | None) -> dict[str, Any]:
    """Render and measure one clip; writes its sheet into ``sheets``.

    Raises:
        VisavisError: the clip cannot be read or its first picture not enrolled.
    """
    png, real = crop_frames(path, engine.spec.frame_size)
    samples = read_samples(path, len(real) * engine.spec.hop_samples)
    rendered = render_frames(engine, png, samples, len(real))
    pair = Pair(rendered=rendered, real=real)
    if sheets is not None:
        Image.fromarray(draw_sheet(pair)).save(sheets / f"{path.stem}.png")
    return {"clip": path.stem, **measure_pair(pair)}


def format_table(clips: list[dict[str, Any]]) -> str:
    """The clips, their mean and the two anchors as a Markdown table."""
    mean = mean_figures(clips)
    still = {c: mean.get(f"{c}_still") for c in COLUMNS} | {"opening_std_ratio": 0.0}
    real = dict(mouth_corr=1.0, lag_frames=0, m_lmd=0.0, f_lmd=0.0, ssim=1.0, opening_std_ratio=1.0)
    rows = [(c["clip"], c) for c in clips]
    rows += [(f"mean of {len(clips)}", mean), ("anchor: still first frame", still), ("anchor: real frames", real)]
    return report_table(["clip", *COLUMNS], [[name, *(row.get(c) for c in COLUMNS)] for name, row in rows])


_engine: Engine | None = None  # of a worker process


def _start_worker(name: str, threads: int) -> None:
    global _engine
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MediaPipe's notices, which no setting silences; errors are returned
    os.environ["VISAVIS_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)  # before an engine starts its pool
    cv2.setNumThreads(threads)
    _engine = create_engine(name)


def _try_clip(path: Path, sheets: Path | None) -> tuple[dict[str, Any] | None, str]:
    """(figures, "") or (None, reason): a broken clip must not end the run."""
    assert _engine is not None
    try:
        return evaluate_clip(_engine, path, sheets), ""
    except VisavisError as error:
        return None, str(error)


def evaluate_clips(
    name: str, paths: list[Path], sheets: Path | None, jobs: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Measure all clips in ``jobs`` processes of their own, each with its own engine; (clips, failed) by name."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    clips, failed = [], []
    spawn = get_context("spawn")  # torch and OpenCV do not survive a fork
    with ProcessPoolExecutor(jobs, spawn, initializer=_start_worker, initargs=(name, threads)) as pool:
        futures = {pool.submit(_try_clip, path, sheets): path for path in paths}
        for future in tqdm(as_completed(futures), total=len(paths), unit="clip", disable=None):
            figures, reason = future.result()
            if figures is not None:
                clips.append(figures)
            else:
                failed.append({"clip": futures[future].stem, "reason": reason})
    return sorted(clips, key=lambda c: c["clip"]), sorted(failed, key=lambda c: c["clip"])


def read_list(path: Path) -> list[str]:
    """Clip names, one a line; empty lines and ``#`` comments are skipped.

    Raises:
        ClipUnreadable: no such file, or no name in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClipUnreadable(f"the list {path} cannot be read ({error}); give a text file of clip names") from error
    names = [line.partition("#")[0].strip() for line in lines]
    if not any(names):
        raise ClipUnreadable(f"the list {path} names no clip; write one clip name a line")
    return [name for name in names if name]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate",
        description="Measure rendered lips against real ones on talking-face videos with sound.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--clips", type=Path, required=True, metavar="DIR", help="folder of videos with a face and sound"
    )
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only N clips, spread evenly over the folder")
    parser.add_argument("--list", type=Path, metavar="FILE", help="only the clips named there, one a line")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write a picture per clip, real above rendered")
    parser.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="processes (default: 1)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        names = read_list(args.list) if args.list else None
        paths = find_clips(args.clips, names, args.limit)
        engine = create_engine(args.engine)  # here too, so that what is wrong with it is said once and at once
    except VisavisError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    about = {"engine": engine.spec.name, "fingerprint": engine.fingerprint, "backend": engine.backend}
    engine.close()
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
    clips, failed = evaluate_clips(args.engine, paths, args.sheets, args.jobs)
    report = {**about, "clips": clips, "mean": mean_figures(clips), "failed": failed}
    try:
        write_json(args.json, report)
    except VisavisError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    if clips:
        print(format_table(clips))
    for entry in failed:
        print(f"left out {entry['clip']}: {entry['reason']}", file=sys.stderr)
    return 0 if clips else 1


if __name__ == "__main__":
    sys.exit(main())
