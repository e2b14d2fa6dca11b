import torch
from torch.nn import functional as F

from engine.s3dnerf.sync_discriminator import (
    LIP_HEIGHT,
    LIP_WIDTH,
    SyncDiscriminator,
    crop_lips,
    freeze,
    sync_loss,
    sync_triplet_loss,
)

torch.set_num_threads(1)


def test_score_is_a_cosine():
    score = SyncDiscriminator()(torch.randn(4, 5, 3, LIP_HEIGHT, LIP_WIDTH), torch.randn(4, 10, 128))
    assert score.shape == (4,) and score.abs().max() <= 1 + 1e-5


def test_triplet_loss_learns_which_sound_goes_with_which_lips():
    torch.manual_seed(0)
    judge = SyncDiscriminator()
    lips = torch.randn(6, 5, 3, LIP_HEIGHT, LIP_WIDTH)
    sound = torch.randn(6, 10, 128)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(40):
        optimiser.zero_grad()
        sync_triplet_loss(judge, lips, sound).backward()
        optimiser.step()
    own = judge(lips, sound)
    other = judge(lips, sound.roll(1, 0))
    assert (own - other).min() > 0.3


def test_generator_is_rewarded_through_the_frozen_judge():
    judge = freeze(SyncDiscriminator())
    lips = torch.randn(2, 5, 3, LIP_HEIGHT, LIP_WIDTH, requires_grad=True)
    loss = sync_loss(judge, lips, torch.randn(2, 10, 128))
    loss.backward()
    assert lips.grad is not None and lips.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())


def test_lips_are_cut_at_the_given_box():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32:, :] = 1
    low = crop_lips(image, torch.tensor([[-1.0, 0.1, 1.0, 1.0]]))
    assert low.shape == (1, 3, LIP_HEIGHT, LIP_WIDTH)
    torch.testing.assert_close(low, F.interpolate(torch.ones(1, 3, 1, 1), size=(LIP_HEIGHT, LIP_WIDTH)))
