"""OpenVINO on a CPU: the stage is traced once and compiled for latency on the cores that are there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.compile import Stage
from engine.errors import EngineUnavailable


def compile_openvino(name: str, stage: nn.Module, example: Sequence[Tensor]) -> Stage:
    """Compile with the shapes of ``example``, in float32.

    Raises:
        EngineUnavailable: OpenVINO is missing or cannot compile the stage here.
    """
    try:
        import openvino as ov
    except ImportError as error:
        raise EngineUnavailable(f"OpenVINO cannot be imported ({error}); pip install openvino, or use eager") from error
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": engine_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        with torch.inference_mode():
            program = ov.convert_model(stage, example_input=tuple(example), input=[list(x.shape) for x in example])
        compiled = ov.Core().compile_model(program, "CPU", options)
    except Exception as error:  # OpenVINO raises bare RuntimeErrors of many kinds
        raise EngineUnavailable(f"OpenVINO cannot compile the {name} stage: {error}") from error
    request = compiled.create_infer_request()
    outputs = len(compiled.outputs)

    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        request.infer([x.detach().contiguous().numpy() for x in arguments], share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(request.get_output_tensor(i).data) for i in range(outputs))

    return run


def engine_threads() -> int:
    """Threads that the engine may use: ``VISAVIS_THREADS``, or all cores but those that encoding needs."""
    asked = os.environ.get("VISAVIS_THREADS", "")
    return max(1, int(asked)) if asked.isdigit() else max(1, (os.cpu_count() or 2) - 1)
