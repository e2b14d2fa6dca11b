"""What stage 1 hears in the clips: the driving features and lip-motion codes that the later stages learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.lip_motion import LipMotion
from tools.training.audio_stage import AudioBranch, closed_code, predict_codes
from tools.training.clips import Clip


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Of each clip; the codes are widened as they are at run time."""

    driving: list[Tensor]  # [n, tokens, width]
    codes: list[np.ndarray]  # [n, K]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How heard codes are widened about the closed mouth's: ``closed + (codes - closed) * gain``; [K] each."""

    closed: np.ndarray
    gain: np.ndarray

    def widen(self, codes: np.ndarray) -> np.ndarray:
        """Codes [n, K] as stage 1 tells them -> as the face is driven."""
        return (self.closed + (codes - self.closed) * self.gain).astype(np.float32)


def calibrate(branch: AudioBranch, clips: list[Clip], motion: LipMotion, config: S3DConfig) -> Calibration:
    """Measure the gain on clips that stage 1 has not learned from: a regression tells less than there is."""
    told = np.concatenate([predict_codes(branch, clip, config)[1].numpy() for clip in clips])
    real = np.concatenate([motion.codes(clip.landmarks) for clip in clips])
    gain = np.clip(real.std(0) / told.std(0), 1.0, 1.4)
    return Calibration(closed=closed_code(clips, motion), gain=gain.astype(np.float32))


def hear_clips(
    branch: AudioBranch, clips: list[Clip], calibration: Calibration, config: S3DConfig, audio: Path, path: Path
) -> Heard:
    """What ``branch`` hears, kept at ``path`` until the state of stage 1 at ``audio`` or the clips are others."""
    names = [clip.name for clip in clips]
    kept = torch.load(path) if path.exists() and path.stat().st_mtime >= audio.stat().st_mtime else None
    if not isinstance(kept, dict) or kept["names"] != names:
        print(f"hearing {len(clips)} clips", flush=True)
        heard = [predict_codes(branch, clip, config) for clip in clips]
        kept = dict(names=names, driving=[d.half() for d, _ in heard], codes=[c.float() for _, c in heard])
        torch.save(kept, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    codes = [calibration.widen(told.numpy()) for told in kept["codes"]]
    return Heard(driving=[driving.float() for driving in kept["driving"]], codes=codes)
