"""Which backend is tried where; hardware and packages are looked for, so both are set here as wanted."""

import pytest
import torch

from engine.compile import choice
from engine.compile.choice import BACKENDS, GPU_BACKENDS, candidates
from engine.errors import EngineUnavailable


@pytest.fixture
def machine(monkeypatch):
    """A machine with or without a GPU, and with these Python packages."""

    def have(*packages: str, gpu: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(choice, "find_spec", lambda name: name if name in packages else None)

    return have


@pytest.mark.parametrize(
    ("gpu", "packages", "wanted"),
    [
        (False, ["openvino"], ["openvino", "eager"]),
        (False, [], ["eager"]),
        (False, ["tensorrt", "tensorrt_rtx_bindings", "onnxscript"], ["eager"]),
        (True, ["openvino"], ["cuda-graph", "openvino", "eager"]),
        (True, ["tensorrt_rtx_bindings", "onnxscript"], ["tensorrt-rtx", "cuda-graph", "eager"]),
        (
            True,
            ["tensorrt", "tensorrt_rtx_bindings", "onnxscript"],
            ["tensorrt", "tensorrt-rtx", "cuda-graph", "eager"],
        ),
        (True, ["tensorrt"], ["cuda-graph", "eager"]),  # nothing writes its ONNX
    ],
)
def test_auto_tries_what_the_machine_has(machine, gpu, packages, wanted):
    machine(*packages, gpu=gpu)
    assert list(candidates("auto")) == wanted


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_without_a_gpu_its_backends_say_so_and_what_to_choose(machine, backend):
    machine("tensorrt", "tensorrt_rtx_bindings", "torch_tensorrt", "onnxscript", gpu=False)
    with pytest.raises(EngineUnavailable, match=f"^{backend} needs an NVIDIA GPU.*choose openvino or eager$"):
        candidates(backend)


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [
        ("tensorrt", "tensorrt", "nvidia"),
        ("tensorrt-rtx", "tensorrt_rtx_bindings", "rtx"),
        ("torch-tensorrt", "torch_tensorrt", "nvidia"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(machine, backend, package, extra):
    machine(gpu=True)
    with pytest.raises(EngineUnavailable, match=f"{backend} needs the Python package {package}.*extra {extra}"):
        candidates(backend)


def test_one_that_is_asked_for_is_the_only_one_tried(machine):
    machine("openvino", gpu=False)
    assert [candidates(name) for name in ("openvino", "eager")] == [("openvino",), ("eager",)]


def test_an_unknown_one_is_refused_with_the_names_of_all():
    with pytest.raises(EngineUnavailable, match=f"'cuda'; choose one of {', '.join(BACKENDS)}"):
        candidates("cuda")
