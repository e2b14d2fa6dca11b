"""OpenVINO on a CPU: a stage is exported once, kept in a cache, and compiled for latency at each start."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.compile import Stage
from engine.compile.cache import cache_folder, code_digest, drop_stale, mark_used
from engine.errors import EngineUnavailable

MAX_THREADS = 16  # rows drawn at a time; the event loop does not send for many more


def compile_openvino(
    name: str, stage: nn.Module, example: Sequence[Tensor], key: str, *, alone: Callable[[], bool] | None = None
) -> Stage:
    """Compile with the shapes of ``example``, in bfloat16 where the CPU has it.

    Args:
        name, stage, example: as ``engine.compile.compile_stage``.
        key: of the weights; exports of other weights, or of other code of ours, are not read, and go with time.
        alone: whether the calling thread has all of the engine's cores to itself; a call that has is shared out among
            them. None: each call is one thread's work.

    Raises:
        EngineUnavailable: OpenVINO is missing or cannot compile the stage here.
    """
    ov = _import_openvino()
    version = f"{ov.get_version()}-{torch.__version__}-{code_digest()}".replace("/", "_")
    path = cache_folder() / f"{name}-{key}-{version}.xml"
    try:
        core = ov.Core()
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": engine_threads(),
            "ENABLE_CPU_PINNING": False,  # encoders take the same cores, now this one, now that
            "INFERENCE_PRECISION_HINT": _precision(core),
        }
        program = _read(core, path)
        if program is None:
            with torch.no_grad():
                program = ov.convert_model(torch.export.export(stage, tuple(example)))
            _write(program, path)
            drop_stale(path, name, (".bin",))
        # An export leaves all sizes open; where they are known, a frame takes a fifth less.
        program.reshape({i: list(x.shape) for i, x in enumerate(example)})
        # A stream is one thread that draws one row: several threads in a row cost the cores a third more.
        compiled = core.compile_model(program, "CPU", options | {"NUM_STREAMS": engine_threads()})
        shares = alone is not None and engine_threads() > 1
        wide = core.compile_model(program, "CPU", options | {"NUM_STREAMS": 1}) if shares else None
    except Exception as error:  # OpenVINO and torch.export raise errors of many kinds
        raise EngineUnavailable(f"OpenVINO cannot compile the {name} stage: {error}") from error
    if len(compiled.inputs) != len(example):  # it drops those that nothing hangs on, and the places of the others move
        raise EngineUnavailable(f"OpenVINO takes {len(compiled.inputs)} of the {name} stage's {len(example)} inputs")
    outputs, own = len(compiled.outputs), threading.local()

    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
            own.wide = wide.create_infer_request() if wide is not None else None
        request = own.wide if own.wide is not None and alone is not None and alone() else own.request
        request.infer([x.detach().contiguous().numpy() for x in arguments], share_inputs=True)
        return tuple(torch.from_numpy(request.get_output_tensor(i).data) for i in range(outputs))

    return run


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which would report every import and conversion to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its own stub takes over
    try:
        import openvino
    except ImportError as error:
        raise EngineUnavailable(f"OpenVINO cannot be imported ({error}); pip install openvino, or use eager") from error
    return openvino


def _precision(core: Any) -> str:
    """bfloat16 where the CPU computes in it (half the time of a frame), float32 elsewhere."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def engine_threads() -> int:
    """Threads that the engine may use, each for a row: ``VISAVIS_THREADS``, or all cores up to MAX_THREADS.

    Encoding shares the cores: it takes a few milliseconds of each frame's forty.
    """
    asked = os.environ.get("VISAVIS_THREADS", "")
    return max(1, int(asked)) if asked.isdigit() else min(MAX_THREADS, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(core: Any, path: Path) -> Any:
    """The kept export, or None where there is none or it is damaged."""
    if not path.exists():
        return None
    try:
        program = core.read_model(path)
    except RuntimeError:
        return None
    mark_used(path)
    return program


def _write(program: Any, path: Path) -> None:
    """Keep an export for the next start; a folder that cannot be written to only costs time then."""
    ov = _import_openvino()
    with contextlib.suppress(OSError, RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            ov.save_model(program, made, compress_to_fp16=False)
            made.with_suffix(".bin").replace(path.with_suffix(".bin"))
            made.replace(path)
