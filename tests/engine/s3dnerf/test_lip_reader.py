import pytest
import torch
from torch.nn import functional as F

from engine.s3dnerf.lip_reader import WIDTHS, LipReader, feature_loss, lip_shape_loss, perceptual_loss, points_in_box

SIZE = 32


@pytest.fixture(autouse=True)
def repeatable():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def network() -> LipReader:
    return LipReader(SIZE).eval().requires_grad_(False)


def test_features_at_four_scales_and_forty_points(network):
    told = network(torch.zeros(2, 3, SIZE, SIZE))
    assert [tuple(f.shape) for f in told.features] == [(2, w, SIZE >> i, SIZE >> i) for i, w in enumerate(WIDTHS, 1)]
    assert told.points.shape == (2, 40, 2)


def test_perceptual_loss_grows_with_blur(network):
    real = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    little, much = F.avg_pool2d(real, 3, 1, 1), F.avg_pool2d(real, 7, 1, 3)
    assert perceptual_loss(network, real, real) == 0
    assert 0 < perceptual_loss(network, (real + little) / 2, real) < perceptual_loss(network, much, real)


def test_perceptual_loss_reaches_the_made_picture_alone(network):
    made, real = (torch.rand(2, 3, SIZE, SIZE, requires_grad=True) for _ in range(2))
    perceptual_loss(network, made, real).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert real.grad is None and all(p.grad is None for p in network.parameters())


def test_features_of_any_strength_weigh_the_same():
    maps = [torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2)]
    other = [torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2)]
    torch.testing.assert_close(feature_loss(maps, other), feature_loss([m * 7 for m in maps], other))


def test_lip_shape_loss_leads_a_picture_to_the_wanted_lips(network):
    wanted = network(torch.rand(1, 3, SIZE, SIZE)).points
    picture = torch.rand(1, 3, SIZE, SIZE).requires_grad_(True)
    optimiser = torch.optim.Adam([picture], 0.05)
    losses = []
    for _ in range(15):
        loss = lip_shape_loss(network(picture).points, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_points_are_relative_to_the_box():
    landmarks = torch.full((1, 478, 3), 0.5)
    points = points_in_box(landmarks, torch.tensor([[0.5, 0.25]]), 0.5)
    torch.testing.assert_close(points[0, 0], torch.tensor([0.0, 0.5]))


def test_other_sizes_are_refused(network):
    with pytest.raises(ValueError, match=r"\[B, 3, 32, 32\], not \[1, 3, 112, 112\]"):
        network(torch.zeros(1, 3, 112, 112))
    with pytest.raises(ValueError, match="multiple of 16"):
        LipReader(100)
