"""Sheets to look at: real above rendered frames, whole and as mouths at twice their size; portraits by voice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.landmarks import mouth_centre
from tools.contact_sheet import GAP_PX, INK, LABEL_PX, PAPER

FPS = 25
WHOLE_COLUMNS = 8
MOUTH_COLUMNS = 10
MOUTH_SIDE = 0.34  # of the crop: lips, teeth, and where the painted box might show a seam
ENLARGED = 2
PAGE_ROWS = 8


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    picture: np.ndarray  # uint8 [H, W, 3]; all of a sheet alike in size
    caption: str


def draw_cells(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Rows of pictures, each with its caption below; pictures stand pixel for pixel."""
    height, width = rows[0][0].picture.shape[:2]
    step_x, step_y = width + GAP_PX, height + LABEL_PX + GAP_PX
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (GAP_PX + columns * step_x, GAP_PX + len(rows) * step_y), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=LABEL_PX - 4)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            at = (GAP_PX + x * step_x, GAP_PX + y * step_y)
            sheet.paste(Image.fromarray(cell.picture), at)
            pen.text((at[0] + 1, at[1] + height), cell.caption, fill=INK, font=font)
    return sheet


def cut_mouth(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The mouth's surroundings at twice their size, uint8 [side, side, 3].

    Args:
        frame: uint8 [S, S, 3].
        landmarks: [478, 3] of this frame; NaN takes the place where aligned crops have the mouth.
    """
    size = frame.shape[0]
    side = round(MOUTH_SIDE * size)
    centre = mouth_centre(landmarks) if np.isfinite(landmarks).all() else np.array([0.0, 0.38])
    left, top = np.clip(((centre + 1) * size / 2 - side / 2).round().astype(int), 0, size - side)
    cut = Image.fromarray(frame[top : top + side, left : left + side])
    return np.asarray(cut.resize((ENLARGED * side,) * 2, Image.Resampling.BICUBIC))


def spread_picks(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` indices, evenly spread from first to last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def save_clip_sheets(stem: Path, rendered: np.ndarray, real: np.ndarray, landmarks: np.ndarray) -> None:
    """Write ``STEM.png``, whole frames, and ``STEM_mouth.png``, mouths; real above rendered.

    Args:
        rendered, real: uint8 [N, S, S, 3].
        landmarks: [N, 478, 3] of the real frames; rendered ones keep the first one's pose.
    """
    whole = spread_picks(len(real), WHOLE_COLUMNS)
    draw_cells([_timed(real, whole, "real"), _timed(rendered, whole, "rendered")]).save(
        stem.with_name(f"{stem.name}.png")
    )
    close = spread_picks(len(real), 2 * MOUTH_COLUMNS)
    mouths_real = {k: cut_mouth(real[k], landmarks[k]) for k in close}
    mouths = {k: cut_mouth(rendered[k], landmarks[0]) for k in close}
    rows = []
    for part in (close[:MOUTH_COLUMNS], close[MOUTH_COLUMNS:]):
        if len(part):
            rows += [_timed(mouths_real, part, "real"), _timed(mouths, part, "rendered")]
    draw_cells(rows).save(stem.with_name(f"{stem.name}_mouth.png"))


def save_portrait_sheet(path: Path, source: np.ndarray, spoken: dict[str, np.ndarray]) -> None:
    """One portrait: a row a voice, the source picture first.

    Args:
        source: uint8 [S, S, 3].
        spoken: frames uint8 [N, S, S, 3] by the voice's name.
    """
    rows = []
    for voice, frames in spoken.items():
        picks = spread_picks(len(frames), WHOLE_COLUMNS)[1:]
        rows.append([Cell(source, "source"), *_timed(frames, picks, voice)])
    draw_cells(rows).save(path)


def mouth_row(
    name: str, source: np.ndarray, landmarks: np.ndarray, spoken: dict[str, tuple[np.ndarray, np.ndarray]]
) -> list[Cell]:
    """A portrait's row of the overview: its own mouth, and by voice the most shut and the widest mouth.

    Args:
        landmarks: [478, 3] of the source.
        spoken: by voice, frames uint8 [N, S, S, 3] and openings [N] (NaN without a face).
    """
    row = [Cell(cut_mouth(source, landmarks), name)]
    for voice, (frames, opening) in spoken.items():
        known = np.isfinite(opening).any()
        shut, wide = (int(np.nanargmin(opening)), int(np.nanargmax(opening))) if known else (0, len(frames) // 2)
        row += _timed({k: cut_mouth(frames[k], landmarks) for k in (shut, wide)}, (shut, wide), voice)
    return row


def save_overview(folder: Path, rows: Sequence[Sequence[Cell]]) -> None:
    """Write ``portraits_mouths_1.png`` and so on, ``PAGE_ROWS`` portraits each."""
    for page, start in enumerate(range(0, len(rows), PAGE_ROWS), start=1):
        draw_cells(rows[start : start + PAGE_ROWS]).save(folder / f"portraits_mouths_{page}.png")


def _timed(frames, picks, name: str) -> list[Cell]:
    return [Cell(frames[k], f"{name[:22]} {k / FPS:.2f} s") for k in picks]
