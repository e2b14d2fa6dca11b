"""What the backends on an NVIDIA GPU share: which GPU it is, a stage moved there, the buffers in between."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.export.passes import move_to_device_pass

from engine.compile.choice import missing_gpu
from engine.errors import EngineUnavailable


@dataclass(frozen=True, kw_only=True)
class Gpu:
    name: str
    capability: str  # compute capability as NVIDIA writes targets: sm_89
    driver: str  # "unknown" where nvidia-smi is not there to say


def present_gpu(who: str) -> Gpu:
    """The GPU that torch uses.

    Args:
        who: wants it, for the message.

    Raises:
        EngineUnavailable: there is none.
    """
    if not torch.cuda.is_available():
        raise EngineUnavailable(missing_gpu(who))
    major, minor = torch.cuda.get_device_capability()
    return Gpu(name=torch.cuda.get_device_name(), capability=f"sm_{major}{minor}", driver=_driver_version())


def _driver_version() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip().partition("\n")[0] or "unknown"


def program_on(
    device: torch.device, stage: nn.Module, example: Sequence[Tensor], rows: int = 1
) -> torch.export.ExportedProgram:
    """A copy of a stage for another device; the stage itself stays where it is.

    It is exported first: the stages make small constants on the CPU as they go, which an export turns into
    tensors that move along, and which could not be made while a CUDA graph is captured. (Transformers makes a
    mask for no other reason than that one is being captured.)

    Args:
        device: where it shall compute.
        stage, example: as ``engine.compile.compile_stage``.
        rows: more than 1 for a stage that takes up to so many at once, all its arguments [rows, ...].
    """
    given, shapes = tuple(example), None
    if rows > 1:
        given = tuple(torch.cat([x, x]) for x in example)  # from one row, export would conclude that it is always one
        shapes = tuple({0: Dim("rows", min=1, max=rows)} for _ in given)
    with torch.no_grad():
        program = export(stage, given, dynamic_shapes=shapes)
    return move_to_device_pass(program, device)


class Uploads:
    """A stage's arguments at fixed addresses on the device, and page-locked beside them on the host.

    Copies between page-locked memory and a GPU do not hold up the CPU. Arguments in ordinary memory are
    copied there first, which costs a CPU about a millisecond for 10 MB.
    """

    def __init__(self, stage: str, shapes: Sequence[Sequence[int]], rows: int, device: torch.device) -> None:
        """Reserve the memory.

        Args:
            stage: its name, for messages.
            shapes: of each argument for one row of the batch.
            rows: at most.
            device: a GPU, or the CPU.
        """
        self._stage, self._shapes, self._rows = stage, [tuple(shape) for shape in shapes], rows
        sizes = [(shape[0] * rows, *shape[1:]) for shape in self._shapes]
        self.device = [torch.zeros(size, device=device) for size in sizes]
        self._host = [torch.zeros(size, pin_memory=device.type == "cuda") for size in sizes]

    def put(self, arguments: Sequence[Tensor]) -> list[Tensor]:
        """Start copying arguments to the device, on the current stream, and say where each will be.

        The next ``put`` must wait until the stream has come past this one.

        Raises:
            ValueError: they are not of the shapes promised, or too many rows.
        """
        self._check(arguments)
        placed = []
        for argument, host, device in zip(arguments, self._host, self.device, strict=True):
            size = len(argument)
            if argument.device != device.device:
                argument = host[:size].copy_(argument)
            placed.append(device[:size].copy_(argument, non_blocking=True))
        return placed

    def _check(self, arguments: Sequence[Tensor]) -> None:
        rows = len(arguments[0]) // self._shapes[0][0] if arguments else 0
        wanted = [(shape[0] * rows, *shape[1:]) for shape in self._shapes]
        given = [tuple(argument.shape) for argument in arguments]
        if given != wanted or not 1 <= rows <= self._rows:
            raise ValueError(
                f"the {self._stage} stage takes 1 to {self._rows} times {self._shapes}, and was given {given}"
            )


class Downloads:
    """A stage's results page-locked on the host."""

    def __init__(self, shapes: Sequence[Sequence[int]], device: torch.device) -> None:
        """Reserve the memory.

        Args:
            shapes: of each result, with as many rows as there will ever be.
            device: where they come from.
        """
        self._host = [torch.zeros(tuple(shape), pin_memory=device.type == "cuda") for shape in shapes]

    def take(self, results: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Start copying results to the host, on the current stream.

        They are there when the stream has been waited for, and stay until the next ``take``.
        """
        return tuple(
            host[: len(result)].copy_(result, non_blocking=True)
            for host, result in zip(self._host, results, strict=True)
        )
