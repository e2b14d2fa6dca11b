"""The TensorRT backend up to where a GPU is needed: keys, and which kept plans are tried. The rest: tests/gpu."""

import dataclasses

import pytest
import torch

from engine.compile import tensorrt
from engine.compile.gpu import Gpu
from engine.compile.plan_builder import LibraryName, PlanMaker
from engine.compile.plan_cache import ANY, plan_folder, write_plan
from engine.compile.tensorrt import compile_tensorrt, plan_key
from engine.errors import EngineUnavailable
from tests.engine.compile.stages import two

GPU = Gpu(name="NVIDIA GeForce RTX 4090", capability="sm_89", driver="580.1")
RTX: LibraryName = "tensorrt_rtx"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path))


@pytest.fixture
def key():
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    return plan_key("two", *two(), "checkpoint", RTX, GPU)


@pytest.fixture(scope="module")
def plan():
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    pytest.importorskip("onnxscript", reason="the extra rtx is not installed")
    return PlanMaker(RTX, "two", *two()).build(GPU.capability).plan


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("library", ["tensorrt", RTX])
def test_without_a_gpu_it_says_so(library):
    with pytest.raises(EngineUnavailable, match="needs an NVIDIA GPU"):
        compile_tensorrt("two", *two(), "checkpoint", library)


def test_the_key_holds_all_that_a_plan_depends_on(key):
    assert dataclasses.asdict(key) == {
        "stage": "two",
        "library": RTX,
        "library_version": tensorrt.load_library(RTX).__version__,
        "capability": "sm_89",
        "gpu": GPU.name,
        "driver": GPU.driver,
        "checkpoint": "checkpoint",
        "code": tensorrt.code_digest(),
        "torch": torch.__version__.split("+")[0],
        "inputs": "vector=1x4 image=1x2x8x8",
    }


def test_a_kept_plan_is_tried(key, plan):
    write_plan(key, plan, plan_folder())
    assert list(tensorrt._kept(key)) == [plan]


@pytest.mark.parametrize("field", ["gpu", "driver", "library_version", "checkpoint", "code"])
def test_a_plan_made_for_something_else_is_not(key, plan, field):
    write_plan(dataclasses.replace(key, **{field: "other"}), plan, plan_folder())
    assert list(tensorrt._kept(key)) == []


def test_a_torn_plan_is_not(key, plan):
    path = write_plan(key, plan, plan_folder())
    path.write_bytes(path.read_bytes()[:-1])
    assert list(tensorrt._kept(key)) == []


def test_one_built_ahead_for_this_kind_of_gpu_is_tried_after_its_own(key, plan):
    write_plan(key.ahead(), b"ahead", plan_folder())
    assert list(tensorrt._kept(key)) == [b"ahead"]
    write_plan(key, plan, plan_folder())
    assert list(tensorrt._kept(key)) == [plan, b"ahead"]


def test_tensorrt_itself_takes_none_built_ahead(key):
    other = dataclasses.replace(key, library="tensorrt")
    write_plan(other.ahead(), b"ahead", plan_folder())
    assert list(tensorrt._kept(other)) == []


def test_what_the_tool_builds_is_what_the_backend_looks_for(key):
    known_by_capability = Gpu(name=ANY, capability="sm_89", driver=ANY)
    assert plan_key("two", *two(), "checkpoint", RTX, known_by_capability) == key.ahead()
