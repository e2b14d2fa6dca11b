"""Plain PyTorch: the reference that other backends are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.compile import Stage


def compile_eager(stage: nn.Module) -> Stage:
    @torch.inference_mode()
    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        given = stage(*arguments)
        return tuple(given) if isinstance(given, tuple) else (given,)

    return run
