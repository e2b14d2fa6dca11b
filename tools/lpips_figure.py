"""LPIPS, where the package ``lpips`` and AlexNet's weights lie on this machine; nothing is ever downloaded.

R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018 (version 0.1,
AlexNet).
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ALEXNET_FILES = "alexnet-owt-*.pth"  # what torchvision keeps in torch's hub folder


@cache
def missing_reason() -> str | None:
    """Why LPIPS cannot be measured here, in a sentence; ``None`` when it can."""
    for package in ("lpips", "torchvision"):
        if importlib.util.find_spec(package) is None:
            return f"LPIPS is left out: the package {package} is not installed."
    import torch

    if not list((Path(torch.hub.get_dir()) / "checkpoints").glob(ALEXNET_FILES)):
        return "LPIPS is left out: AlexNet's weights are not in torch's hub folder, and nothing is downloaded."
    return None


def mean_lpips(a: np.ndarray, b: np.ndarray, every: int = 1) -> float | None:
    """Mean LPIPS of every ``every``-th pair of frames uint8 [N, S, S, 3]; ``None`` where it cannot be measured."""
    if missing_reason() is not None:
        return None
    import torch

    with torch.inference_mode():
        values = [float(_network()(_tensor(x), _tensor(y))) for x, y in zip(a[::every], b[::every], strict=True)]
    return float(np.mean(values))


@cache
def _network() -> Any:
    import lpips  # type: ignore[import-not-found, unused-ignore]

    return lpips.LPIPS(net="alex", verbose=False).eval()


def _tensor(frame: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 127.5 - 1
