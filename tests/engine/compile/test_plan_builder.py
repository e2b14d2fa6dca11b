"""TensorRT for RTX really builds here: its builder needs no GPU (the plan does, to be run)."""

from importlib.util import find_spec

import pytest

from engine.compile import plan_builder
from engine.compile.onnx_export import MOST_ROWS, export_onnx
from engine.compile.plan_builder import (
    LibraryName,
    PlanMaker,
    build_plan,
    check_target,
    load_library,
    targets_of,
    wants_half,
)
from engine.errors import EngineUnavailable
from tests.engine.compile.stages import OneRow, two

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
pytest.importorskip("onnxscript", reason="the extra rtx is not installed")
RTX: LibraryName = "tensorrt_rtx"


@pytest.fixture(scope="module")
def built():
    return PlanMaker(RTX, "two", *two()).build("sm_86")


def test_a_plan_has_the_stages_inputs_with_their_ranges(built):
    told = [(b.name, b.dtype, b.shape, b.profile) for b in built.inputs]
    assert told == [
        ("vector", "FLOAT", (-1, 4), ((1, 4), (1, 4), (MOST_ROWS, 4))),
        ("image", "FLOAT", (-1, 2, 8, 8), ((1, 2, 8, 8), (1, 2, 8, 8), (MOST_ROWS, 2, 8, 8))),
    ]


def test_a_plan_has_the_stages_outputs(built):
    assert [(b.name, b.dtype, b.shape) for b in built.outputs] == [
        ("out0", "FLOAT", (-1, 3)),
        ("out1", "FLOAT", (-1, 2, 8, 8)),
    ]


def test_the_library_knows_a_plan_from_nonsense(built):
    malformed = int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    told = {name: runtime.get_engine_validity(data)[1] for name, data in (("plan", built.plan), ("none", b"x" * 4096))}
    assert not told["plan"] & malformed and told["none"] & malformed
    assert all(binding.name.encode() in built.plan for binding in (*built.inputs, *built.outputs))


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_89", "sm_120"])
def test_other_targets_have_plans_too(built, target):
    plan = PlanMaker(RTX, "two", *two()).build(target).plan
    assert len(plan) > 1000 and plan != built.plan


def test_turing_takes_no_float32_products_so_it_gets_half():
    stage, example = two()
    assert wants_half(RTX, "sm_75")
    with pytest.raises(EngineUnavailable, match="cannot build the stage for sm_75.*FP32"):
        build_plan(RTX, export_onnx(stage, example, rows=1), "sm_75")


def test_a_stage_that_takes_one_row_has_fixed_shapes():
    stage = OneRow()
    built = PlanMaker(RTX, "one", stage, two()[1][:1]).build("sm_89")
    assert [(b.shape, b.profile) for b in built.inputs] == [((1, 4), ())]


def test_a_batch_that_the_library_cannot_build_leaves_a_plan_for_one_row(monkeypatch, caplog):
    def fails_at_batches(name, stage, capability):
        if stage.rows > 1:
            raise EngineUnavailable("an internal error")
        return build_plan(name, stage, capability)

    monkeypatch.setattr(plan_builder, "build_plan", fails_at_batches)
    built = PlanMaker(RTX, "two", *two()).build("sm_89")
    assert [b.shape for b in built.inputs] == [(1, 4), (1, 2, 8, 8)]
    assert "the two stage gets a plan for one row at a time: an internal error" in caplog.text


def test_a_capability_that_it_cannot_build_for_is_refused_with_those_that_it_can():
    assert {"sm_75", "sm_89", "sm_120"} <= set(targets_of(RTX))
    with pytest.raises(EngineUnavailable, match="builds for sm_75, .*, and not for sm_90"):
        check_target(RTX, "sm_90")


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_library_that_is_not_there_is_named_with_its_extra():
    with pytest.raises(EngineUnavailable, match="tensorrt cannot be imported .*: install the extra nvidia"):
        load_library("tensorrt")
