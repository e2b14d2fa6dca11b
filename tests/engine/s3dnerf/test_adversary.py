import pytest
import torch
from torch.nn import functional as F

from engine.s3dnerf.adversary import Adversary, feature_matching_loss, r1_penalty, spread_of_batch
from engine.s3dnerf.losses import discriminator_adversarial_loss, generator_adversarial_loss


def small() -> Adversary:
    return Adversary(size=32, widths=(8, 16, 16))


@pytest.fixture(autouse=True)
def repeatable():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def sharp_and_blurred(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    sharp = torch.rand(count, 3, 32, 32) * 2 - 1
    return sharp, F.avg_pool2d(sharp, 3, 1, 1)


def test_one_logit_a_picture():
    assert Adversary()(torch.zeros(2, 3, 112, 112)).shape == (2,)


def test_learns_to_tell_sharp_from_blurred_pictures():
    adversary = small()
    optimiser = torch.optim.Adam(adversary.parameters(), 2e-3, betas=(0.0, 0.99))
    for _ in range(25):
        real, made = sharp_and_blurred()
        loss = discriminator_adversarial_loss(adversary(real), adversary(made))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    real, made = sharp_and_blurred()
    assert adversary(real).min() > adversary(made).max()


def test_r1_is_half_the_squared_gradient():
    adversary, real = small(), torch.rand(3, 3, 32, 32)
    nudge = torch.randn_like(real) * 1e-3
    seen = real.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(adversary(seen).sum(), seen)
    moved = (adversary(real + nudge) - adversary(real - nudge)).sum() / 2
    torch.testing.assert_close(moved, (slope * nudge).sum(), rtol=0.05, atol=1e-4)  # it is the gradient
    torch.testing.assert_close(r1_penalty(adversary, real), slope.pow(2).sum() / 3 / 2)


def test_r1_makes_the_judgement_flatter():
    adversary = small()
    real, _ = sharp_and_blurred()
    optimiser = torch.optim.Adam(adversary.parameters(), 1e-2)
    before = r1_penalty(adversary, real).item()
    for _ in range(10):
        optimiser.zero_grad()
        r1_penalty(adversary, real).backward()
        optimiser.step()
    assert r1_penalty(adversary, real).item() < before / 2


def test_r1_is_of_full_precision_under_autocast():
    adversary, (real, _) = small(), sharp_and_blurred()
    plain = r1_penalty(adversary, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(r1_penalty(adversary, real), plain)


def test_generator_gets_a_gradient_to_the_picture():
    _, made = sharp_and_blurred()
    made.requires_grad_(True)
    generator_adversarial_loss(small()(made)).backward()
    assert made.grad is not None and made.grad.flatten(1).abs().sum(1).min() > 0


def test_a_batch_of_equal_pictures_has_no_spread():
    x = torch.randn(1, 4, 5, 5).expand(6, -1, -1, -1)
    assert spread_of_batch(x)[:, -1].max() < 1e-3
    assert spread_of_batch(torch.randn(6, 4, 5, 5))[:, -1].min() > 0.5


def test_feature_matching_moves_the_made_side_alone():
    adversary = small()
    real, made = (picture.requires_grad_(True) for picture in sharp_and_blurred())
    maps = adversary.features(made), adversary.features(real)
    assert feature_matching_loss(maps[1], maps[1]) == 0
    feature_matching_loss(*maps).backward()
    assert made.grad is not None and real.grad is None


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, 32, 32\], not \[1, 3, 64, 64\]"):
        small()(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="15 px"):
        Adversary(15)
