"""One safetensors file: all weights (half precision), the lip-motion basis, the configuration, the credits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.s3dnerf.config import from_json, to_json
from engine.s3dnerf.lip_motion import LipMotion
from engine.s3dnerf.model import S3DNerf

FORMAT_VERSION = "1"
DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "assets" / "s3dnerf_compact.safetensors"
_MOTION = ("basis", "scale", "guess", "gap_mean")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    model: S3DNerf  # float32, in evaluation mode
    motion: LipMotion
    closed: np.ndarray  # [K], the lip-motion code of a closed mouth
    gain: np.ndarray  # [K], widens heard codes about the closed one to the spread of real ones
    credits: str
    fingerprint: str  # of the file's bytes


def save_checkpoint(
    path: Path, model: S3DNerf, motion: LipMotion, closed: np.ndarray, gain: np.ndarray, credits: str
) -> None:
    """Write a checkpoint that carries its configuration and the credits of its data."""
    tensors = {f"model.{name}": value.half().contiguous() for name, value in model.state_dict().items()}
    extra = {f"motion.{name}": getattr(motion, name) for name in _MOTION} | {"closed": closed, "gain": gain}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in extra.items()}
    meta = {"format": FORMAT_VERSION, "config": to_json(model.config), "credits": credits}
    save_file(tensors, str(path), metadata=meta)


def _motion_of(tensors: dict[str, Tensor]) -> LipMotion:
    return LipMotion(**{name: tensors[f"motion.{name}"].numpy() for name in _MOTION})


def read_motion(path: Path) -> LipMotion:
    """The basis of lip-motion codes of a checkpoint, whatever its model's sizes.

    Raises:
        CheckpointError: missing, damaged, or no checkpoint.
    """
    try:
        return _motion_of({name: tensor.float() for name, tensor in load_file(str(path)).items()})
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint ({error})") from error


def load_checkpoint(path: Path = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: missing, damaged, or of another format or configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; train one with python -m tools.train compact")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); fetch or train it again") from error
    if meta.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format {meta.get('format')!r}; this version reads {FORMAT_VERSION!r}")
    try:
        model = S3DNerf(from_json(meta["config"]))
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        extra = {name: tensors[name].numpy() for name in ("closed", "gain")}
        motion = _motion_of(tensors)
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    model.eval().requires_grad_(False)
    return Checkpoint(model=model, motion=motion, credits=meta.get("credits", ""), fingerprint=fingerprint, **extra)
