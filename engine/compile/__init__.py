"""Backends that run the model's stages: one signature, :func:`compile_stage`, whatever computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from engine.errors import EngineUnavailable

BACKENDS = ("openvino", "eager")
Stage = Callable[..., tuple[Tensor, ...]]


def compile_stage(name: str, stage: nn.Module, example: Sequence[Tensor], backend: str, key: str) -> Stage:
    """Make a stage fast.

    Args:
        name: of the stage, for messages and caches.
        stage: in evaluation mode; takes and gives tensors only.
        example: arguments of the shapes that it will always get.
        backend: one of ``BACKENDS``.
        key: of the weights, for caches.

    Returns:
        a function of the same arguments that gives a tuple of float32 tensors, valid until its next call.

    Raises:
        EngineUnavailable: for a backend that this machine cannot run.
    """
    if backend == "openvino":
        from engine.compile.openvino import compile_openvino

        return compile_openvino(name, stage, example, key)
    if backend == "eager":
        from engine.compile.eager import compile_eager

        return compile_eager(stage)
    raise EngineUnavailable(f"no backend is called {backend!r}; choose one of {', '.join(BACKENDS)}")
