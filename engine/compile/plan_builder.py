"""TensorRT's builder, through its own Python API: ONNX -> plan. The same for TensorRT and TensorRT for RTX.

TensorRT for RTX builds for any compute capability that it knows, on a machine without a GPU too; the plan is
finished on the GPU by a just-in-time compiler when it is loaded. TensorRT builds for the GPU that is there.
"""

from __future__ import annotations

import functools
import importlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from engine.compile.onnx_export import OnnxStage, export_onnx, most_rows
from engine.errors import EngineUnavailable

logger = logging.getLogger(__name__)

LibraryName = Literal["tensorrt", "tensorrt_rtx"]
BEST_ROWS = 1  # of a batch, for which kernels are chosen; our engine draws row by row
_MODULES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx_bindings"}
_EXTRAS = {"tensorrt": "nvidia", "tensorrt_rtx": "rtx"}


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One input or output of a plan."""

    name: str
    dtype: str  # as TensorRT calls it: FLOAT
    shape: tuple[int, ...]  # -1 where the batch is open
    profile: tuple[tuple[int, ...], ...] = ()  # least, best, most; of an input whose batch is open

    def __str__(self) -> str:
        size = "x".join("?" if n < 0 else str(n) for n in self.shape)
        return f"{self.name} {size}"


@dataclass(frozen=True, kw_only=True)
class Built:
    plan: bytes
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    seconds: float


@functools.cache
def load_library(name: LibraryName) -> Any:
    """The Python module of TensorRT or of TensorRT for RTX.

    Raises:
        EngineUnavailable: it cannot be imported.
    """
    try:
        return importlib.import_module(_MODULES[name])
    except Exception as error:  # their shared libraries fail in more ways than ImportError
        raise EngineUnavailable(f"{name} cannot be imported ({error}): install the extra {_EXTRAS[name]}") from error


@functools.cache
def library_logger(name: LibraryName) -> Any:
    """What the library has to say, to our log; one for each library, kept for good, as it demands.

    Its ``said`` holds the last few complaints: it puts reasons there and nowhere else.
    """
    trt = load_library(name)

    class Log(trt.ILogger):  # type: ignore[name-defined]
        levels = {
            trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.Severity.ERROR: logging.ERROR,
            trt.ILogger.Severity.WARNING: logging.INFO,  # to us, mostly about itself
        }

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: deque[str] = deque(maxlen=3)

        def log(self, severity: Any, message: str) -> None:
            level = self.levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.said.append(" ".join(message.split()))
            logger.log(min(level, logging.INFO), "%s: %s", name, message)  # whoever asked raises what matters

    return Log()


def targets_of(name: LibraryName) -> tuple[str, ...]:
    """The compute capabilities that a library builds for by name; none for TensorRT, which takes the GPU's."""
    members = getattr(getattr(load_library(name), "ComputeCapability", None), "__members__", {})
    known = (member.removeprefix("SM") for member in members if member.startswith("SM"))
    return tuple(f"sm_{number}" for number in sorted(known, key=int))


def check_target(name: LibraryName, capability: str) -> None:
    """Raises EngineUnavailable for a compute capability that the library cannot build for."""
    targets = targets_of(name)
    if targets and capability not in targets:
        version = load_library(name).__version__
        raise EngineUnavailable(f"{name} {version} builds for {', '.join(targets)}, and not for {capability}")


def wants_half(name: LibraryName, capability: str) -> bool:
    """TensorRT for RTX refuses float32 matrix products for Turing (sm_75): they are built in half precision."""
    return name == "tensorrt_rtx" and capability == "sm_75"


class PlanMaker:
    """Builds one stage for any number of targets; what it exports for one serves the others too."""

    def __init__(self, library: LibraryName, name: str, stage: nn.Module, example: Sequence[Tensor]) -> None:
        """Args as ``engine.compile.compile_stage``; ``library`` builds."""
        self._library, self._name, self._stage, self._example = library, name, stage, example
        self._exports: dict[tuple[int, bool], OnnxStage] = {}

    def build(self, capability: str) -> Built:
        """Build for a compute capability: for a batch where the stage can take one, and the library can build it so.

        Raises:
            EngineUnavailable: the library does not know the capability, or cannot build the stage for it.
        """
        check_target(self._library, capability)
        rows, half = most_rows(self._stage, self._example), wants_half(self._library, capability)
        try:
            return build_plan(self._library, self._export(rows, half), capability)
        except EngineUnavailable as error:
            if rows == 1:
                raise
            logger.warning("the %s stage gets a plan for one row at a time: %s", self._name, error)
        return build_plan(self._library, self._export(1, half), capability)

    def _export(self, rows: int, half: bool) -> OnnxStage:
        if (rows, half) not in self._exports:
            self._exports[rows, half] = export_onnx(self._stage, self._example, rows=rows, half=half)
        return self._exports[rows, half]


def build_plan(name: LibraryName, stage: OnnxStage, capability: str) -> Built:
    """Build a plan.

    Args:
        name: of the library.
        stage: exported; where its batch is open, the plan takes 1 to ``stage.rows`` rows.
        capability: the GPU's, such as ``sm_89``. TensorRT builds for the GPU that is there, whatever this says.

    Raises:
        EngineUnavailable: the library does not know the capability, or cannot build the stage for it.
    """
    trt, log = load_library(name), library_logger(name)
    check_target(name, capability)
    log.said.clear()
    began_s = time.perf_counter()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # the network's weights live in it: it must outlast the build
    if not parser.parse(stage.onnx):
        raise EngineUnavailable(f"{name} cannot read the stage's ONNX: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    if targets_of(name):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability.replace("sm_", "SM")), 0)
    if stage.rows > 1:
        config.add_optimization_profile(_profile(builder, stage))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineUnavailable(f"{name} cannot build the stage for {capability}: {'; '.join(log.said)}")
    seconds = time.perf_counter() - began_s
    inputs = tuple(_binding(network.get_input(i), stage) for i in range(network.num_inputs))
    outputs = tuple(_binding(network.get_output(i), stage) for i in range(network.num_outputs))
    return Built(plan=bytes(plan), inputs=inputs, outputs=outputs, seconds=seconds)


def _profile(builder: Any, stage: OnnxStage) -> Any:
    profile = builder.create_optimization_profile()
    for name in stage.inputs:
        profile.set_shape(name, *_range(stage, name))
    return profile


def _range(stage: OnnxStage, name: str) -> tuple[tuple[int, ...], ...]:
    first, *rest = stage.inputs[name]
    return tuple((first * rows, *rest) for rows in (1, BEST_ROWS, stage.rows))


def _binding(tensor: Any, stage: OnnxStage) -> Binding:
    ranges = _range(stage, tensor.name) if tensor.name in stage.inputs and stage.rows > 1 else ()
    return Binding(name=tensor.name, dtype=tensor.dtype.name, shape=tuple(tensor.shape), profile=ranges)
