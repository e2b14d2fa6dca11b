"""Plain PyTorch: the reference that other backends are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.compile import Stage


def compile_eager(stage: nn.Module) -> Stage:
    @torch.inference_mode()
    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        return results_of(stage(*arguments))

    return run


def results_of(given: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a stage gives, one tensor or several, as a tuple."""
    return (given,) if isinstance(given, Tensor) else tuple(given)
