"""A stage as ONNX, which TensorRT reads: its batch left open where the stage can take one."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from engine.compile.eager import results_of
from engine.errors import EngineUnavailable

MOST_ROWS = 8  # of a batch that plans are made for
ROW_TOLERANCE = 1e-3  # float32 kernels round differently in a batch


@dataclass(frozen=True, kw_only=True)
class OnnxStage:
    onnx: bytes
    inputs: dict[str, tuple[int, ...]]  # name -> shape for one row of the batch
    rows: int  # at most: 1, or MOST_ROWS


def export_onnx(stage: nn.Module, example: Sequence[Tensor], *, rows: int, half: bool = False) -> OnnxStage:
    """Write a stage as ONNX.

    Args:
        stage: in evaluation mode; inputs are called as its ``forward``'s arguments, outputs out0, out1, ...
        example: arguments for one row of the batch.
        rows: 1 for the shapes of ``example`` alone, more to leave the batch open up to so many.
        half: multiply matrices and convolve in half precision; all else, and what goes in and out, is float32.

    Raises:
        EngineUnavailable: ONNX's packages are missing, or the stage cannot be written as ONNX.
    """
    names = input_names(stage)
    try:
        with torch.no_grad(), _quiet():
            program = _program(HalfProducts(stage) if half else stage, example, rows)
            outputs = [f"out{i}" for i in range(len(program.graph_signature.user_outputs))]
            written = torch.onnx.export(program, input_names=names, output_names=outputs, dynamo=True, verbose=False)
    except ImportError as error:
        raise EngineUnavailable(f"ONNX cannot be written ({error}): pip install onnxscript") from error
    except Exception as error:  # torch.export and the ONNX exporter raise errors of many kinds
        raise EngineUnavailable(f"{type(stage).__name__} cannot be written as ONNX: {error}") from error
    assert written is not None
    shapes = {name: tuple(x.shape) for name, x in zip(names, example, strict=True)}
    return OnnxStage(onnx=written.model_proto.SerializeToString(), inputs=shapes, rows=rows)


def input_names(stage: nn.Module) -> list[str]:
    """What a stage's arguments are called, in their order."""
    return list(inspect.signature(stage.forward).parameters)


def most_rows(stage: nn.Module, example: Sequence[Tensor]) -> int:
    """How many rows a stage can take at once: MOST_ROWS where two rows come out as each does alone, else 1.

    Every argument's first dimension counts rows, ``example``'s being one row's worth of it.
    """
    dice = torch.Generator().manual_seed(0)
    other = [x + 0.1 * torch.randn(x.shape, generator=dice) for x in example]
    with torch.no_grad():
        alone = [results_of(stage(*row)) for row in (example, other)]
        try:
            both = results_of(stage(*(torch.cat(pair) for pair in zip(example, other, strict=True))))
        except RuntimeError:  # shapes that do not fit
            return 1
    for together, *single in zip(both, *alone, strict=True):
        wanted = torch.cat(single)
        if together.shape != wanted.shape:
            return 1
        if (together - wanted).abs().max() > ROW_TOLERANCE * wanted.abs().max().clamp_min(1):
            return 1
    return MOST_ROWS


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters have to say about themselves, and about packages that nobody needs."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


class HalfProducts(nn.Module):
    """A stage whose matrix products and convolutions are in half precision; it is exported, never trained."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, *arguments: Tensor) -> Any:
        with _InHalf():
            return self.stage(*arguments)


class _InHalf(TorchFunctionMode):
    """Rounds the factors of products and convolutions to half precision, and hands the result on as float32."""

    PRODUCTS = frozenset(
        [F.linear, F.conv1d, F.conv2d, F.scaled_dot_product_attention, torch.matmul, torch.bmm]
        + [torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__]
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.PRODUCTS:
            return func(*args, **kwargs)
        return func(*map(_halve, args), **{name: _halve(value) for name, value in kwargs.items()}).float()


def _halve(value: Any) -> Any:
    return value.half() if isinstance(value, Tensor) and value.is_floating_point() else value


def _program(stage: nn.Module, example: Sequence[Tensor], rows: int) -> ExportedProgram:
    if rows == 1:
        return export(stage, tuple(example))
    dim = Dim("rows", min=1, max=rows)
    shapes = tuple({0: dim if len(x) == 1 else len(x) * dim} for x in example)
    two = tuple(torch.cat([x, x]) for x in example)  # from one row, export would conclude that it is always one
    return export(
        stage, two, dynamic_shapes=(shapes,) if isinstance(stage, HalfProducts) else shapes
    )  # *arguments are one
