"""The render stage's kernels against their plain twin."""

import pytest
import torch

from engine.lanes import Lanes
from engine.s3dnerf.config import compact
from engine.s3dnerf.cpu_render import CpuRender
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.stage_examples import stages_of


def arguments(lattice_scale: float, turn: float) -> tuple[torch.Tensor, ...]:
    """A made-up face: a bulge of depth, a bent lattice, a turned head."""
    torch.manual_seed(1)
    config = compact()
    axis = torch.linspace(-1, 1, 32)
    depth = 0.4 * (axis[:, None] ** 2 + axis**2)[None, None] - 0.2
    angle = torch.tensor(turn)
    rotation = torch.eye(3)[None].clone()
    rotation[0, 0, 0] = rotation[0, 2, 2] = angle.cos()
    rotation[0, 0, 2], rotation[0, 2, 0] = angle.sin(), -angle.sin()
    return (
        torch.randn(1, 3 * config.lattice_depths, config.lattice, config.lattice) * lattice_scale,
        torch.randn(3 * config.plane_size**2, config.plane_features),
        depth,
        torch.rand(1, 3, 256, 256) * 2 - 1,
        torch.rand(1, 1, 256, 256),
        torch.tensor([[0.05, 0.4, -0.1]]),
        torch.tensor([[0.55]]),
        rotation,
        torch.tensor([[0.03, -0.02, 0.01]]),
    )


@pytest.fixture(scope="module")
def stages():
    torch.manual_seed(0)
    return stages_of(S3DNerf(compact()).eval(), gpu=False)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("name", "scale", "turn"), [("render", 0.1, 0.15), ("render_thrifty", 0.02, -0.3)])
def test_kernels_draw_what_the_stage_draws(stages, name, scale, turn, threads):
    stage, _ = stages[name]
    given = arguments(scale, turn)
    with torch.inference_mode():
        wanted = stage(*given)
    for told, expected in zip(CpuRender(stage, Lanes(threads))(*given), wanted, strict=True):
        torch.testing.assert_close(told, expected, atol=3e-4, rtol=1e-4)


def test_what_lies_outside_the_lattice_and_the_planes_is_met_too(stages):
    stage, _ = stages["render"]
    given = list(arguments(0.1, 0.0))
    given[5], given[8] = torch.tensor([[0.9, 0.95, 0.6]]), torch.tensor([[0.5, -0.4, 0.9]])
    with torch.inference_mode():
        wanted = stage(*given)
    for told, expected in zip(CpuRender(stage, Lanes(1))(*given), wanted, strict=True):
        torch.testing.assert_close(told, expected, atol=3e-4, rtol=1e-4)


def test_a_frame_does_not_depend_on_the_one_before(stages):
    stage, _ = stages["render"]
    run, first, other = CpuRender(stage, Lanes(2)), arguments(0.1, 0.15), arguments(0.05, -0.2)
    alone = [x.clone() for x in run(*first)]
    run(*other)
    assert all(torch.equal(x, y) for x, y in zip(run(*first), alone, strict=True))
