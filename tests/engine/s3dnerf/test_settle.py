"""Pixels that the field hardly moves stay where they are; the others move as it says."""

import torch

from engine.s3dnerf.stages import SETTLE_PX, settle

PX = 2 / 256  # crop units


def test_small_moves_vanish_and_large_ones_stay():
    rest, full = SETTLE_PX
    lengths = torch.tensor([0.0, rest * 0.99, full * 1.01, 5.0])
    moved = torch.stack([lengths * 0.6, lengths * -0.8])[None, :, None] * PX  # [1, 2, 1, 4]
    settled = settle(moved)
    assert (settled[..., :2] == 0).all()
    torch.testing.assert_close(settled[..., 2:], moved[..., 2:])


def test_moves_fade_in_without_a_jump():
    lengths = torch.linspace(0, 2, 400)
    settled = settle(torch.stack([lengths, torch.zeros(400)])[None, :, None] * PX)[0, 0, 0] / PX
    steps = settled.diff()
    assert (steps >= 0).all() and steps.max() < 4 * lengths.diff().max()
