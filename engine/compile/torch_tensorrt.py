"""Torch-TensorRT: PyTorch's own bridge to TensorRT. What TensorRT does not know runs in PyTorch beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.compile import Stage
from engine.compile.eager import results_of
from engine.compile.gpu import Downloads, Uploads, present_gpu, program_on
from engine.errors import EngineUnavailable


class BridgedStage:
    """A stage that Torch-TensorRT compiled, between fixed buffers."""

    def __init__(self, bridge: Any, name: str, stage: nn.Module, example: Sequence[Tensor], device: torch.device):
        self._uploads = Uploads(name, [x.shape for x in example], 1, device)
        self._stream = torch.cuda.Stream(device)
        program = program_on(device, stage, example)
        self._compiled = bridge.dynamo.compile(program, arg_inputs=[x.to(device) for x in example])
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            first = results_of(self._compiled(*self._uploads.put(example)))
        self._stream.synchronize()
        self._downloads = Downloads([x.shape for x in first], device)

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.stream(self._stream):
            results = results_of(self._compiled(*self._uploads.put(arguments)))
            taken = self._downloads.take(results)
        self._stream.synchronize()
        return taken


def compile_torch_tensorrt(name: str, stage: nn.Module, example: Sequence[Tensor]) -> Stage:
    """Compile the stage with the shapes of ``example``, anew at each start: nothing is kept on disk.

    Args:
        name, stage, example: as ``engine.compile.compile_stage``.

    Returns:
        the stage; takes one row, from the CPU (copied through page-locked memory) or the GPU, gives it on the CPU.

    Raises:
        EngineUnavailable: there is no GPU, Torch-TensorRT cannot be imported, or it cannot compile the stage.
    """
    present_gpu("torch-tensorrt")
    try:
        import torch_tensorrt
    except Exception as error:  # without a driver or of another torch's build, it raises bare Exceptions
        raise EngineUnavailable(
            f"Torch-TensorRT cannot be imported ({error}): install the extra nvidia, or choose tensorrt or cuda-graph"
        ) from error
    try:
        device = torch.device("cuda", torch.cuda.current_device())
        return BridgedStage(torch_tensorrt, name, stage, example, device)
    except Exception as error:  # Torch-TensorRT, TensorRT and CUDA raise errors of many kinds
        raise EngineUnavailable(f"Torch-TensorRT cannot compile the {name} stage: {error}") from error
