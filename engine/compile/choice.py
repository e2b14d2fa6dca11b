"""Which backend: what there is, what each needs, and the order in which ``auto`` tries them."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from engine.errors import EngineUnavailable

GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "torch-tensorrt", "cuda-graph")
BACKENDS = ("auto", "openvino", "eager", *GPU_BACKENDS)
# torch-tensorrt is not among these: it runs the same library as tensorrt behind one more layer.
AUTO_ORDER = ("tensorrt", "tensorrt-rtx", "cuda-graph", "openvino", "eager")
_NEEDS = {  # Python modules, and what brings them
    "openvino": (("openvino",), "pip install openvino"),
    "tensorrt": (("tensorrt", "onnxscript"), "install the extra nvidia"),
    "tensorrt-rtx": (("tensorrt_rtx_bindings", "onnxscript"), "install the extra rtx"),
    "torch-tensorrt": (("torch_tensorrt",), "install the extra nvidia"),
}


def candidates(asked: str) -> tuple[str, ...]:
    """The backends to try, one after the other.

    Args:
        asked: one of ``BACKENDS``. ``auto`` tries all that have what they need here, the fastest first.

    Raises:
        EngineUnavailable: no backend is called so, or it lacks what it needs.
    """
    if asked == "auto":
        return tuple(name for name in AUTO_ORDER if not what_is_missing(name))
    if asked not in BACKENDS:
        raise EngineUnavailable(f"no backend is called {asked!r}; choose one of {', '.join(BACKENDS)}")
    missing = what_is_missing(asked)
    if missing:
        raise EngineUnavailable(missing)
    return (asked,)


def what_is_missing(backend: str) -> str:
    """What keeps a backend from being tried here, and what to do, in one sentence; empty where nothing does.

    Looks for hardware and packages only, and imports none of them: whether a backend then really works, it
    alone can say.
    """
    if on_gpu(backend) and not torch.cuda.is_available():
        return missing_gpu(backend)
    modules, remedy = _NEEDS.get(backend, ((), ""))
    for module in modules:
        if find_spec(module) is None:
            other = "cuda-graph" if on_gpu(backend) else "eager"
            return f"{backend} needs the Python package {module}, which is not installed: {remedy}, or choose {other}"
    return ""


def missing_gpu(what: str) -> str:
    """The sentence for who wants a GPU where torch sees none."""
    return (
        f"{what} needs an NVIDIA GPU and a CUDA build of torch, and torch {torch.__version__} sees no GPU: "
        f"choose openvino or eager"
    )


def on_gpu(backend: str) -> bool:
    """Whether a backend computes on a GPU."""
    return backend in GPU_BACKENDS
