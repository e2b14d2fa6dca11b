"""The render stage for GPUs against the CPU's, both on the CPU."""

import pytest
import torch
from torch import Tensor

from engine.s3dnerf.checkpoint import load_checkpoint
from engine.s3dnerf.geometry import Pose
from engine.s3dnerf.gpu_render import GpuRender, SummedPose
from engine.s3dnerf.stages import Render

TURN_RAD = 0.1


@pytest.fixture(scope="module")
def model():
    return load_checkpoint().model


def arguments(model, seed: int) -> tuple[Tensor, ...]:
    """Some face, turned a little, its mouth moved."""
    config, dice = model.config, torch.Generator().manual_seed(seed)
    turn = torch.tensor([[1.0, -TURN_RAD, 0], [TURN_RAD, 1, 0], [0, 0, 1]])[None]
    return (
        torch.randn(1, 3 * config.lattice_depths, config.lattice, config.lattice, generator=dice) * 0.05,
        torch.randn(3 * config.plane_size**2, config.plane_features, generator=dice),
        torch.rand(1, 1, 32, 32, generator=dice) * 0.2,
        torch.rand(1, 3, 256, 256, generator=dice) * 2 - 1,
        torch.rand(1, 1, 256, 256, generator=dice),
        torch.tensor([[0.02, 0.4, 0.1]]),
        torch.tensor([[0.6]]),
        turn,
        torch.tensor([[0.01, -0.02, 0.0]]),
    )


@torch.inference_mode()
def test_draws_what_the_cpu_stage_draws(model):
    given = arguments(model, 0)
    for drawn, wanted in zip(GpuRender(model)(*given), Render(model)(*given), strict=True):
        torch.testing.assert_close(drawn, wanted, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_rows_of_a_batch_are_drawn_as_if_alone(model):
    stage, rows = GpuRender(model), [arguments(model, seed) for seed in (1, 2)]
    together = stage(*(torch.cat(pair) for pair in zip(*rows, strict=True)))
    alone = [torch.cat(pair) for pair in zip(*(stage(*row) for row in rows), strict=True)]
    for drawn, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(drawn, wanted, atol=1e-4, rtol=1e-4)


def test_a_summed_pose_turns_as_the_product_does():
    rotation, shift, points = torch.randn(2, 3, 3), torch.randn(2, 3), torch.randn(2, 5, 3)
    torch.testing.assert_close(
        SummedPose(rotation, shift).to_source(points), Pose(rotation, shift).to_source(points), atol=1e-5, rtol=1e-5
    )
