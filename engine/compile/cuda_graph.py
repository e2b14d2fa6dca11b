"""CUDA graphs: a stage's kernels in plain PyTorch, recorded once and replayed, without TensorRT.

A frame is hundreds of small kernels, and launching them one by one from Python takes longer than running
them. A replay launches all of a stage at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.compile import Stage
from engine.compile.eager import results_of
from engine.compile.gpu import Downloads, Uploads, present_gpu, program_on
from engine.errors import EngineUnavailable

WARM_RUNS = 3  # libraries choose kernels and reserve memory in their first runs; a recording must not


class RecordedStage:
    """A stage as a CUDA graph, with all that the graph reads and writes: none of it may go or move before it."""

    def __init__(self, name: str, stage: nn.Module, example: Sequence[Tensor], device: torch.device) -> None:
        # Guards would ask the GPU about every argument; Uploads has looked at them on the CPU.
        self._program = program_on(device, stage, example).module(check_guards=False)
        self._uploads = Uploads(name, [x.shape for x in example], 1, device)
        self._stream, self._graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which moved the weights and filled the buffers
        with torch.inference_mode():
            with torch.cuda.stream(self._stream):
                self._uploads.put(example)
                for _ in range(WARM_RUNS):
                    self._program(*self._uploads.device)
            self._stream.synchronize()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._results = results_of(self._program(*self._uploads.device))
        self._downloads = Downloads([x.shape for x in self._results], device)

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.stream(self._stream):
            self._uploads.put(arguments)
            self._graph.replay()
            taken = self._downloads.take(self._results)
        self._stream.synchronize()
        return taken


def compile_cuda_graph(name: str, stage: nn.Module, example: Sequence[Tensor]) -> Stage:
    """Record the stage on the GPU with the shapes of ``example``.

    Args:
        name, stage, example: as ``engine.compile.compile_stage``.

    Returns:
        the stage; takes one row, from the CPU (copied through page-locked memory) or the GPU, gives it on the CPU.

    Raises:
        EngineUnavailable: there is no GPU, or the stage cannot be recorded on it.
    """
    present_gpu("cuda-graph")
    try:
        return RecordedStage(name, stage, example, torch.device("cuda", torch.cuda.current_device()))
    except Exception as error:  # CUDA, cuDNN and torch.export raise errors of many kinds
        raise EngineUnavailable(f"the {name} stage cannot be recorded as a CUDA graph: {error}") from error
