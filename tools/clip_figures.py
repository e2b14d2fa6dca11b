"""One talking-face clip: what its sound makes of its first picture, measured against what really came."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from engine.api import Engine
from engine.errors import CheckpointError
from engine.image import sample
from engine.landmarks import CROP_SIZE
from engine.portrait import read_portrait
from tools import face_figures, lip_figures
from tools.clip import ClipUnreadable, encode_png, read_frames, read_samples
from tools.comparison_sheet import save_clip_sheets
from tools.lpips_figure import mean_lpips
from tools.sharpness import mean_cpbd, measure_cpbd
from tools.speaking import find_landmarks, render_frames

if TYPE_CHECKING:
    from tools.sync_figure import SyncFigure

SLOW_EVERY = 5  # CPBD and LPIPS, which cost most, look at every 5th frame


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Rendered and real frames of one clip."""

    rendered: np.ndarray  # uint8 [N, S, S, 3]
    real: np.ndarray  # uint8 [N, S, S, 3]
    source: np.ndarray  # uint8 [S, S, 3], the enrolled portrait
    samples: np.ndarray  # float32 [n] 16 kHz, beginning with the first frame


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Of a Pair's frames, float32 [N, 478, 3] in crop coordinates, NaN where no face is found."""

    rendered: np.ndarray
    real: np.ndarray


def evaluate_clip(path: Path, sheets: Path | None, engine: Engine) -> dict[str, Any]:
    """Render and measure one clip; writes its two sheets into ``sheets``.

    Raises:
        VisavisError: the clip cannot be read or its first picture not enrolled.
    """
    png, real = crop_frames(path, engine.spec.frame_size)
    samples = read_samples(path, len(real) * engine.spec.hop_samples)
    avatar = engine.enrol(png)
    rendered = render_frames(engine, avatar, samples, len(real))
    pair = Pair(rendered=rendered, real=real, source=avatar.crop, samples=samples)
    landmarks = find_pair(pair)
    if sheets is not None:
        save_clip_sheets(sheets / path.stem, pair.rendered, pair.real, landmarks.real)
    return {"clip": path.stem, **measure_pair(pair, landmarks)}


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


def find_pair(pair: Pair) -> Landmarks:
    """Find both sides' landmarks.

    Raises:
        ClipUnreadable: the first real frame shows no face; without it nothing can be aligned.
    """
    real = find_landmarks(pair.real)
    if not lip_figures.found_frames(real)[0]:
        raise ClipUnreadable("no face found on the first picture's crop; leave the clip out")
    return Landmarks(rendered=find_landmarks(pair.rendered), real=real)


def measure_pair(pair: Pair, landmarks: Landmarks) -> dict[str, Any]:
    """All figures of one clip, by the names of ``tools/figure_keys.py``."""
    still = np.broadcast_to(pair.real[0], pair.real.shape)
    return {
        **_lip_figures(landmarks),
        **_picture_figures(pair, still),
        **_sharpness_figures(pair, landmarks),
        **_upper_face_figures(pair, landmarks.real),
        **_sync_figures(pair, landmarks, still),
        **_face_counts(landmarks),
    }


def _lip_figures(landmarks: Landmarks) -> dict[str, Any]:
    first = landmarks.real[0]
    rendered, real = (lip_figures.align_landmarks(x, first) for x in (landmarks.rendered, landmarks.real))
    still = np.broadcast_to(first, real.shape)
    opening, opening_real = lip_figures.opening_px(rendered), lip_figures.opening_px(real)
    return {
        "mouth_corr": lip_figures.correlate(opening, opening_real),
        "lag_frames": lip_figures.find_lag(opening, opening_real),
        "m_lmd": lip_figures.lip_distance_px(rendered, real),
        "m_lmd_still": lip_figures.lip_distance_px(still, real),
        "f_lmd": lip_figures.face_distance_px(rendered, real),
        "f_lmd_still": lip_figures.face_distance_px(still, real),
        "opening_std": lip_figures.spread_px(opening),
        "opening_std_real": lip_figures.spread_px(opening_real),
        "opening_std_ratio": lip_figures.std_ratio(opening, opening_real),
    }


def _picture_figures(pair: Pair, still: np.ndarray) -> dict[str, Any]:
    return {
        "ssim": lip_figures.mean_ssim(pair.rendered, pair.real),
        "ssim_still": lip_figures.mean_ssim(still, pair.real),
        "psnr": lip_figures.mean_psnr_db(pair.rendered, pair.real),
        "psnr_still": lip_figures.mean_psnr_db(still, pair.real),
        "lpips": mean_lpips(pair.rendered, pair.real, SLOW_EVERY),
        "lpips_still": mean_lpips(still, pair.real, SLOW_EVERY),
    }


def _sharpness_figures(pair: Pair, landmarks: Landmarks) -> dict[str, Any]:
    cpbd, source = mean_cpbd(pair.rendered, SLOW_EVERY), measure_cpbd(pair.source)
    detail = face_figures.detail_levels(pair.rendered, landmarks.rendered)
    detail_real = face_figures.detail_levels(pair.real, landmarks.real)
    return {
        "cpbd": cpbd,
        "cpbd_real": mean_cpbd(pair.real, SLOW_EVERY),
        "cpbd_still": measure_cpbd(pair.real[0]),
        "cpbd_source": source,
        "cpbd_ratio": lip_figures.divide(cpbd, source),
        "mouth_detail": detail,
        "mouth_detail_real": detail_real,
        "mouth_detail_still": face_figures.detail_levels(pair.real[:1], landmarks.real[:1]),
        "mouth_detail_ratio": lip_figures.divide(detail, detail_real),
    }


def _upper_face_figures(pair: Pair, real: np.ndarray) -> dict[str, Any]:
    mask = face_figures.upper_face_mask(real[0], pair.real.shape[1])
    quiet = face_figures.still_steps(real)
    source_db = face_figures.upper_psnr_db(pair.rendered, pair.source, mask)
    real_db = face_figures.upper_psnr_db(pair.real, pair.source, mask)
    still_db = face_figures.upper_psnr_db(pair.real[:1], pair.source, mask)
    flicker_real = face_figures.flicker_levels(pair.real, mask, quiet)
    return {
        "flicker": face_figures.flicker_levels(pair.rendered, mask, quiet),
        "flicker_real": flicker_real,
        "flicker_still": None if flicker_real is None else 0.0,
        "still_steps": int(quiet.sum()),
        "upper_psnr": float(source_db.mean()),
        "upper_psnr_worst": float(source_db.min()),
        "upper_psnr_real": float(real_db.mean()),
        "upper_psnr_still": float(still_db.mean()),
    }


def _sync_figures(pair: Pair, landmarks: Landmarks, still: np.ndarray) -> dict[str, Any]:
    held = np.broadcast_to(landmarks.real[0], landmarks.real.shape)
    rows = (("", pair.rendered, landmarks.rendered), ("_real", pair.real, landmarks.real), ("_still", still, held))
    figures: dict[str, Any] = {}
    for suffix, frames, points in rows:
        sync = _measure_sync(frames, points, pair.samples)
        figures[f"sync{suffix}"] = None if sync is None else sync.score
        figures[f"sync_offset{suffix}"] = None if sync is None else sync.offset_frames
    return figures


@cache
def sync_missing_reason() -> str | None:
    """Why Sync cannot be measured here, in a sentence; ``None`` when it can."""
    from engine.s3dnerf.sync_discriminator import DEFAULT_JUDGE, load_judge

    try:
        load_judge()
    except CheckpointError as error:
        return f"Sync is left out: {error}.".replace(str(DEFAULT_JUDGE), DEFAULT_JUDGE.name)  # this goes into tables
    return None


def _measure_sync(frames: np.ndarray, landmarks: np.ndarray, samples: np.ndarray) -> SyncFigure | None:
    if sync_missing_reason() is not None:
        return None
    from tools.sync_figure import measure_sync  # torch and all: --help must not wait for it

    return measure_sync(frames, landmarks, samples)


def _face_counts(landmarks: Landmarks) -> dict[str, Any]:
    found, found_real = (lip_figures.found_frames(x) for x in (landmarks.rendered, landmarks.real))
    return {
        "faces_found": int(found.sum()),
        "no_face_frames": int((~found).sum()),
        "no_face_frames_real": int((~found_real).sum()),
        "frames": len(found),
    }


def mean_figures(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean of each figure over the clips that have it, ``None`` where none has; and two counts over the clips."""
    mean: dict[str, Any] = {"count": len(clips)}
    for key in [k for k in (clips[0] if clips else {}) if k != "clip"]:
        known = [c[key] for c in clips if c[key] is not None]
        mean[key] = float(np.mean(known)) if known else None
    lags = [c["lag_frames"] for c in clips if c.get("lag_frames") is not None]
    mean["lag_within_1_share"] = float(np.mean(np.abs(lags) <= 1)) if lags else None
    return mean
