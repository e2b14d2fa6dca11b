"""Backends that run the model's stages: one signature, :func:`compile_stage`, whatever computes.

``choice.py`` says which there are and which one ``auto`` takes; docs/backends.md says what each needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from engine.compile.choice import BACKENDS, candidates, on_gpu
from engine.errors import EngineUnavailable

__all__ = ["BACKENDS", "Stage", "candidates", "compile_stage", "on_gpu"]

Stage = Callable[..., tuple[Tensor, ...]]


def compile_stage(
    name: str,
    stage: nn.Module,
    example: Sequence[Tensor],
    backend: str,
    key: str,
    *,
    alone: Callable[[], bool] | None = None,
) -> Stage:
    """Make a stage fast.

    Args:
        name: of the stage, for messages and caches.
        stage: in evaluation mode, on the CPU; takes and gives float32 tensors only. It is not changed.
        example: arguments of the shapes that it will always get, one row of each (a batch of one). A stage
            that can take more rows at once may get them from backends that say so.
        backend: one of ``BACKENDS`` but ``auto``.
        key: of the weights, for caches.
        alone: whether the calling thread has the engine's cores to itself; a backend on a CPU then shares a call
            out among them. None: it never does.

    Returns:
        a function of the same arguments that gives a tuple of float32 tensors on the CPU, valid until its
        next call on the same thread. Arguments are on the CPU; a backend on a GPU takes them from there too, without
        the copy.

    Raises:
        EngineUnavailable: for a backend that this machine cannot run.
    """
    if backend == "eager":
        from engine.compile.eager import compile_eager

        return compile_eager(stage)
    if backend == "openvino":
        from engine.compile.openvino import compile_openvino

        return compile_openvino(name, stage, example, key, alone=alone)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from engine.compile.tensorrt import compile_tensorrt

        return compile_tensorrt(name, stage, example, key, "tensorrt" if backend == "tensorrt" else "tensorrt_rtx")
    if backend == "torch-tensorrt":
        from engine.compile.torch_tensorrt import compile_torch_tensorrt

        return compile_torch_tensorrt(name, stage, example)
    if backend == "cuda-graph":
        from engine.compile.cuda_graph import compile_cuda_graph

        return compile_cuda_graph(name, stage, example)
    raise EngineUnavailable(f"no backend is called {backend!r}; choose one of {', '.join(BACKENDS)}")
