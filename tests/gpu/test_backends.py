"""Every backend on an NVIDIA GPU against eager on the CPU, stage by stage and whole, on a real face.

A GPU may multiply in TF32, whose factors have 11 significant bits: the tolerances are for that.
"""

import numpy as np
import pytest
import torch

from engine.compile import compile_stage
from engine.compile.choice import GPU_BACKENDS, what_is_missing
from engine.s3dnerf.checkpoint import load_checkpoint
from engine.s3dnerf.engine import S3DNerfEngine
from engine.s3dnerf.stage_examples import stages_of
from tests.engine.compile.drawn import draw, drawn, relative_errors

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]
STAGES = ["hear", "deform", "render", "render_thrifty", "paint"]
LARGEST, MEAN = 0.04, 0.002  # errors in parts of the largest value


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISAVIS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def stages():
    return stages_of(load_checkpoint().model, gpu=True)


@pytest.fixture(params=GPU_BACKENDS)
def backend(request) -> str:
    missing = what_is_missing(request.param)
    if missing:
        pytest.skip(missing)
    return request.param


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_computes_what_eager_computes(stages, backend, name):
    stage, example = stages[name]
    run = compile_stage(name, stage, example, backend, "test")
    arguments, wanted = drawn()[name]
    run(*(x + 0.1 for x in arguments))  # nothing of this is left in the next
    for given, result in zip(run(*arguments), wanted, strict=True):
        largest, mean = relative_errors(given, result)
        assert largest < LARGEST and mean < MEAN


def test_arguments_on_the_gpu_are_taken_as_well(stages, backend):
    stage, example = stages["deform"]
    run = compile_stage("deform", stage, example, backend, "test")
    arguments, _ = drawn()["deform"]
    wanted = [x.clone() for x in run(*arguments)]
    for given, result in zip(run(*(x.cuda() for x in arguments)), wanted, strict=True):
        assert given.equal(result)


def test_the_model_stays_on_the_cpu(stages, backend):
    stage, example = stages["hear"]
    compile_stage("hear", stage, example, backend, "test")
    assert {x.device.type for x in stage.parameters()} == {"cpu"}


@pytest.mark.parametrize("thrift", [0, 1])
def test_frames_are_those_of_eager(backend, thrift):
    """Within 0.15 grey levels in the mean, and 4 but for one subpixel of a thousand."""
    engine = S3DNerfEngine(backend=backend)
    assert engine.backend == backend
    given, wanted = (draw(e, thrift).astype(int) for e in (engine, S3DNerfEngine(backend="eager")))
    error = np.abs(given - wanted)
    assert error.mean() < 0.15 and np.percentile(error, 99.9) <= 4
    engine.close()


def test_auto_takes_the_gpu():
    assert S3DNerfEngine(backend="auto").backend in GPU_BACKENDS
