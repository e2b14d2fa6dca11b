"""TensorRT and TensorRT for RTX on a GPU: batches, and what becomes of kept plans."""

import dataclasses

import pytest
import torch

from engine.compile import tensorrt
from engine.compile.choice import what_is_missing
from engine.compile.gpu import present_gpu
from engine.compile.onnx_export import MOST_ROWS
from engine.compile.plan_builder import PlanMaker
from engine.compile.plan_cache import plan_folder, read_plan, write_plan
from engine.compile.tensorrt import compile_tensorrt, plan_key
from tests.engine.compile.stages import two

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]
TOLERANCE = 1e-2  # TF32


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path))


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def library(request):
    missing = what_is_missing(request.param.replace("_", "-"))
    if missing:
        pytest.skip(missing)
    return request.param


@pytest.mark.parametrize("rows", [1, 3, MOST_ROWS])
def test_rows_come_out_as_each_does_alone(library, rows):
    stage, example = two()
    run = compile_tensorrt("two", stage, example, "test", library)
    arguments = [torch.randn(rows, *x.shape[1:]) for x in example]
    with torch.inference_mode():
        wanted = stage(*arguments)
    for given, result in zip(run(*arguments), wanted, strict=True):
        torch.testing.assert_close(given, result, atol=TOLERANCE, rtol=TOLERANCE)


def test_too_many_rows_are_refused(library):
    stage, example = two()
    run = compile_tensorrt("two", stage, example, "test", library)
    with pytest.raises(ValueError, match=f"takes 1 to {MOST_ROWS} times"):
        run(*(torch.randn(MOST_ROWS + 1, *x.shape[1:]) for x in example))


def test_the_second_start_builds_nothing(library, monkeypatch):
    compile_tensorrt("two", *two(), "test", library)
    monkeypatch.setattr(PlanMaker, "build", lambda *_: pytest.fail("a plan was built again"))
    compile_tensorrt("two", *two(), "test", library)


@pytest.mark.parametrize("kept", [b"", b"nonsense" * 512])
def test_a_plan_that_the_library_does_not_take_is_built_anew(library, kept):
    stage, example = two()
    key = plan_key("two", stage, example, "test", library, present_gpu("the test"))
    write_plan(key, kept, plan_folder())
    run = compile_tensorrt("two", stage, example, "test", library)
    assert run(*example)[0].shape == (1, 3)
    assert read_plan(key, plan_folder()) not in (None, kept)


def test_a_plan_of_another_driver_is_left_alone_and_another_built(library):
    stage, example = two()
    key = plan_key("two", stage, example, "test", library, present_gpu("the test"))
    write_plan(dataclasses.replace(key, driver="0.0"), b"of old", plan_folder())
    compile_tensorrt("two", stage, example, "test", library)
    assert list(tensorrt._kept(key)) != []


def test_a_plan_built_ahead_for_this_kind_of_gpu_runs(monkeypatch):
    missing = what_is_missing("tensorrt-rtx")
    if missing:
        pytest.skip(missing)
    stage, example = two()
    gpu = present_gpu("the test")
    key = plan_key("two", stage, example, "test", "tensorrt_rtx", gpu).ahead()
    plan = PlanMaker("tensorrt_rtx", "two", stage, example).build(gpu.capability).plan
    write_plan(key, plan, plan_folder())
    monkeypatch.setattr(PlanMaker, "build", lambda *_: pytest.fail("a plan was built again"))
    run = compile_tensorrt("two", stage, example, "test", "tensorrt_rtx")
    torch.testing.assert_close(run(*example)[0], stage(*example)[0], atol=TOLERANCE, rtol=TOLERANCE)
