"""What TensorRT is given to read computes what the stage computes: OpenVINO reads the same ONNX and tells."""

import numpy as np
import pytest
import torch

from engine.compile.eager import results_of
from engine.compile.onnx_export import MOST_ROWS, HalfProducts, export_onnx, most_rows
from engine.s3dnerf.checkpoint import load_checkpoint
from engine.s3dnerf.stage_examples import stages_of
from tests.engine.compile.stages import OneRow, RowByRow, two

torch.set_num_threads(1)
NAMES = ["hear", "deform", "render", "render_thrifty", "paint"]


@pytest.fixture(scope="module")
def stages():
    return stages_of(load_checkpoint().model, gpu=True)


def some(example, rows: int):
    """Arguments near those of the example, each row its own."""
    dice = torch.Generator().manual_seed(rows)
    return [torch.cat([x + 0.05 * torch.randn(x.shape, generator=dice) for _ in range(rows)]) for x in example]


def run_onnx(onnx: bytes):
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(onnx), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_of_the_model_takes_a_batch(stages, name):
    assert most_rows(*stages[name]) == MOST_ROWS


@pytest.mark.parametrize("stage", [RowByRow(), OneRow()])
def test_a_stage_whose_rows_are_not_their_own_takes_one(stage):
    assert most_rows(stage, [torch.randn(1, 4)]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_onnx_computes_what_the_stage_computes(stages, name):
    """Within 1e-4 of what comes out at most; the same file for one row and for three."""
    pytest.importorskip("onnxscript", reason="the extras that bring it are not installed")
    stage, example = stages[name]
    compiled = run_onnx(export_onnx(stage, example, rows=MOST_ROWS).onnx)
    for rows in (1, 3):
        arguments = some(example, rows)
        with torch.inference_mode():
            wanted = results_of(stage(*arguments))
        given = compiled([x.numpy() for x in arguments])
        for index, result in enumerate(wanted):
            assert np.abs(given[index] - result.numpy()).max() < 1e-4 * result.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_half_products_change_little(stages, name):
    """Within 5e-3 of what comes out at most."""
    stage, example = stages[name]
    arguments = some(example, 2)
    with torch.inference_mode():
        for given, wanted in zip(
            results_of(HalfProducts(stage)(*arguments)), results_of(stage(*arguments)), strict=True
        ):
            assert given.dtype == torch.float32
            assert (given - wanted).abs().max() < 5e-3 * wanted.abs().max()


def test_half_products_reach_the_file():
    onnx = pytest.importorskip("onnx", reason="the extras that bring it are not installed")
    pytest.importorskip("onnxscript", reason="the extras that bring it are not installed")
    stage, example = two()
    nodes = onnx.load_from_string(export_onnx(stage, example, rows=MOST_ROWS, half=True).onnx).graph.node
    to_half = [a.i for node in nodes if node.op_type == "Cast" for a in node.attribute]
    assert onnx.TensorProto.FLOAT16 in to_half


def test_inputs_are_called_as_the_arguments_are():
    pytest.importorskip("onnxscript", reason="the extras that bring it are not installed")
    stage, example = two()
    assert export_onnx(stage, example, rows=1).inputs == {"vector": (1, 4), "image": (1, 2, 8, 8)}
