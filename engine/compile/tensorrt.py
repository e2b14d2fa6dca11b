"""TensorRT and TensorRT for RTX: a stage as a plan, built from our ONNX once and kept, run on the GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.compile import Stage
from engine.compile.cache import code_digest
from engine.compile.gpu import Downloads, Gpu, Uploads, present_gpu
from engine.compile.onnx_export import input_names
from engine.compile.plan_builder import LibraryName, PlanMaker, library_logger, load_library
from engine.compile.plan_cache import PlanKey, keep_plan, plan_folder, read_plan
from engine.errors import EngineUnavailable

logger = logging.getLogger(__name__)


def compile_tensorrt(name: str, stage: nn.Module, example: Sequence[Tensor], key: str, library: LibraryName) -> Stage:
    """Load the stage's plan, or build and keep it.

    A kept plan that is of another GPU, driver, library, checkpoint or code is not read, and one that is
    damaged, or that the library does not take, is built anew.

    Args:
        name, stage, example, key: as ``engine.compile.compile_stage``.
        library: which of the two.

    Returns:
        the stage; takes as many rows as its plan does, from the CPU (copied through page-locked memory) or
        the GPU, and gives them on the CPU.

    Raises:
        EngineUnavailable: there is no GPU, no such library, or it cannot build or run the stage.
    """
    gpu = present_gpu("TensorRT" if library == "tensorrt" else "TensorRT for RTX")
    wanted = plan_key(name, stage, example, key, library, gpu)
    for plan in _kept(wanted):
        try:
            return _load(plan, name, stage, example, library)
        except EngineUnavailable as error:
            logger.warning("a kept plan of the %s stage is not taken, it is built anew: %s", name, error)
    plan = PlanMaker(library, name, stage, example).build(gpu.capability).plan
    keep_plan(wanted, plan)
    return _load(plan, name, stage, example, library)


def _load(plan: bytes, name: str, stage: nn.Module, example: Sequence[Tensor], library: LibraryName) -> Stage:
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        return PlannedStage(library, plan, name, input_names(stage), example, device)
    except RuntimeError as error:  # of torch: out of memory, a broken driver
        raise EngineUnavailable(f"{library} cannot run the {name} stage: {error}") from error


def plan_key(
    name: str, stage: nn.Module, example: Sequence[Tensor], checkpoint: str, library: LibraryName, gpu: Gpu
) -> PlanKey:
    """What a plan of the stage for this GPU is kept under.

    Args:
        name, stage, example: as ``engine.compile.compile_stage``.
        checkpoint: its ``key``.
        library: that builds.
        gpu: to run on; its name and driver ``plan_cache.ANY`` for one that is known by its capability alone.

    Raises:
        EngineUnavailable: there is no such library.
    """
    shapes = ("x".join(map(str, x.shape)) for x in example)
    return PlanKey(
        stage=name,
        library=library,
        library_version=load_library(library).__version__,
        capability=gpu.capability,
        gpu=gpu.name,
        driver=gpu.driver,
        checkpoint=checkpoint,
        code=code_digest(),
        torch=torch.__version__.partition("+")[0],  # its builds for CPU and CUDA write the same ONNX
        inputs=" ".join(f"{n}={shape}" for n, shape in zip(input_names(stage), shapes, strict=True)),
    )


def _kept(wanted: PlanKey) -> Iterator[bytes]:
    """Plans to try: this GPU's own, and one for RTX that was built ahead of time for all of its kind."""
    keys = [wanted, wanted.ahead()] if wanted.library == "tensorrt_rtx" else [wanted]
    for key in keys:
        plan = read_plan(key, plan_folder())
        if plan is not None:
            yield plan


class PlannedStage:
    """A plan between fixed buffers, on a stream of its own."""

    def __init__(
        self,
        library: LibraryName,
        plan: bytes,
        name: str,
        names: Sequence[str],
        example: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        """Load a plan and run it once, so that whatever ails it shows now.

        Args:
            library: that built it.
            plan: its bytes.
            name: of the stage.
            names: of its arguments, in their order.
            example: arguments for one row of the batch.
            device: a GPU.

        Raises:
            EngineUnavailable: the library does not take the plan, or cannot run it.
        """
        trt, self._log, self._name = load_library(library), library_logger(library), name
        self._runtime = trt.Runtime(self._log)  # must outlast the engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine.create_execution_context() if self._engine else None
        if self._context is None:
            raise EngineUnavailable(f"{library} does not take the {name} stage's plan: {'; '.join(self._log.said)}")
        bound = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {n: self._engine.get_tensor_mode(n) for n in bound}
        self._inputs = [n if modes.get(n) == trt.TensorIOMode.INPUT else "" for n in names]  # "": nothing hangs on it
        self._outputs = sorted((n for n in bound if modes[n] == trt.TensorIOMode.OUTPUT), key=lambda n: int(n[3:]))
        self._stream = torch.cuda.Stream(device)
        rows = self._most_rows(example)
        self._uploads = Uploads(name, [x.shape for x in example], rows, device)
        self._set_shapes([(len(x) * rows, *x.shape[1:]) for x in example])
        sizes = [tuple(self._context.get_tensor_shape(n)) for n in self._outputs]
        self._results = [torch.empty(size, device=device) for size in sizes]
        self._downloads = Downloads(sizes, device)
        self._set_addresses()
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which fills the buffers with zeros
        self(*example)

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.stream(self._stream):
            placed = self._uploads.put(arguments)
            self._set_shapes([x.shape for x in placed])
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise EngineUnavailable(f"TensorRT cannot run the {self._name} stage: {'; '.join(self._log.said)}")
            lengths = [self._context.get_tensor_shape(n)[0] for n in self._outputs]
            taken = self._downloads.take([x[:n] for x, n in zip(self._results, lengths, strict=True)])
        self._stream.synchronize()
        return taken

    def _most_rows(self, example: Sequence[Tensor]) -> int:
        """As its profile says; one where the batch is not open."""
        for name, x in zip(self._inputs, example, strict=True):
            if name and -1 in tuple(self._engine.get_tensor_shape(name)):
                return int(self._engine.get_tensor_profile_shape(name, 0)[2][0]) // len(x)
        return 1

    def _set_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        for name, shape in zip(self._inputs, shapes, strict=True):
            if name and not self._context.set_input_shape(name, tuple(shape)):
                raise EngineUnavailable(f"the {self._name} stage's plan does not take {name} of {tuple(shape)}")

    def _set_addresses(self) -> None:
        """Once: fewer rows lie at the beginning of the same buffers."""
        tensors = [*zip(self._inputs, self._uploads.device, strict=True)]
        tensors += [*zip(self._outputs, self._results, strict=True)]
        for name, tensor in tensors:
            if name:
                self._context.set_tensor_address(name, tensor.data_ptr())
