import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.errors import CheckpointError
from engine.s3dnerf.sync_discriminator import (
    HEARD_SAMPLES,
    LIP_HEIGHT,
    LIP_WIDTH,
    MARGIN,
    MEL_BANDS,
    MEL_STEPS,
    SyncDiscriminator,
    crop_lips,
    freeze,
    lip_boxes,
    load_judge,
    log_mel,
    save_judge,
    sync_loss,
    sync_triplet_loss,
)


@pytest.fixture(autouse=True)
def repeatable():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def some_lips(count: int) -> torch.Tensor:
    return torch.rand(count, 5, 3, LIP_HEIGHT, LIP_WIDTH) * 2 - 1


def tone(hz: float) -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(HEARD_SAMPLES) / 16_000 * 2 * torch.pi * hz)[None]


def test_score_is_a_cosine():
    score = SyncDiscriminator()(some_lips(4), torch.randn(4, MEL_BANDS, MEL_STEPS))
    assert score.shape == (4,) and score.abs().max() <= 1 + 1e-5


def test_neither_skin_nor_light_matter():
    judge, lips, mel = SyncDiscriminator(), some_lips(2), torch.randn(2, MEL_BANDS, MEL_STEPS)
    torch.testing.assert_close(judge(lips, mel), judge(lips * 0.8 + 0.1, mel), atol=0.01, rtol=0)


def test_triplet_loss_is_equation_7():
    e_l, e_a = (F.normalize(torch.randn(2, 8), dim=1) for _ in range(2))
    score = e_l @ e_a.T
    terms = [
        F.relu(MARGIN - score[0, 0] + score[0, 1]),
        F.relu(MARGIN - score[1, 1] + score[1, 0]),
        F.relu(MARGIN - score[0, 0] + score[1, 0]),
        F.relu(MARGIN - score[1, 1] + score[0, 1]),
    ]
    # With one negative each, the mean over those within the margin is halved by the one that keeps it finite.
    torch.testing.assert_close(sync_triplet_loss(e_l, e_a), torch.stack(terms).mean() / 2)


def test_triplet_loss_is_nothing_where_all_is_clear():
    e = torch.eye(4)
    assert sync_triplet_loss(e, e) == 0
    assert sync_triplet_loss(e, e.roll(1, 0)) > 0.2


def test_triplet_loss_learns_which_sound_goes_with_which_lips():
    judge, lips = SyncDiscriminator(), some_lips(6)
    mel = torch.randn(6, MEL_BANDS, MEL_STEPS)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(15):
        optimiser.zero_grad()
        sync_triplet_loss(judge.embed_lips(lips), judge.embed_sound(mel)).backward()
        optimiser.step()
    assert (judge(lips, mel) - judge(lips, mel.roll(1, 0))).min() > 0.3


def test_generator_is_rewarded_through_the_frozen_judge():
    judge = freeze(SyncDiscriminator())
    lips = some_lips(2).requires_grad_(True)
    sync_loss(judge, lips, torch.randn(2, MEL_BANDS, MEL_STEPS)).backward()
    assert lips.grad is not None and lips.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())


def test_a_tone_is_heard_in_its_own_band():
    heard = [log_mel(tone(hz))[0, :, 8:24].mean(1) for hz in (300.0, 1000.0, 4000.0)]
    peaks = [int(spectrum.argmax()) for spectrum in heard]
    assert peaks == sorted(peaks) and len(set(peaks)) == 3
    mel = np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 7600 / 700), MEL_BANDS + 2)[1:-1]
    assert abs(700 * (10 ** (mel[peaks[1]] / 2595) - 1) - 1000) < 40


def test_a_click_is_heard_at_its_time():
    sound = torch.zeros(1, HEARD_SAMPLES)
    sound[0, 20 * 160 + 80] = 1.0  # in the middle of step 20
    assert log_mel(sound)[0].mean(0).argmax() == 20


def test_silence_is_finite_and_other_lengths_are_refused():
    assert torch.isfinite(log_mel(torch.zeros(1, HEARD_SAMPLES))).all()
    with pytest.raises(ValueError, match="hears 5120 samples about a frame, not 5000"):
        log_mel(torch.zeros(1, 5000))


def test_lips_are_cut_at_the_given_box():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 32:, :] = 1
    low = crop_lips(image, torch.tensor([[-1.0, 0.1, 1.0, 1.0]]))
    assert low.shape == (1, 3, LIP_HEIGHT, LIP_WIDTH)
    torch.testing.assert_close(low, torch.ones_like(low))


def test_frames_in_a_row_share_a_box():
    landmarks = torch.rand(10, 478, 3)
    boxes = lip_boxes(landmarks, 5).unflatten(0, (2, 5))
    assert torch.equal(boxes[:, 0], boxes[:, 4]) and not torch.equal(boxes[0, 0], boxes[1, 0])


def test_a_judge_survives_its_file(tmp_path):
    judge, lips, mel = freeze(SyncDiscriminator()), some_lips(2), torch.randn(2, MEL_BANDS, MEL_STEPS)
    save_judge(tmp_path / "judge.safetensors", judge, "thanks to all")
    again = load_judge(tmp_path / "judge.safetensors")
    torch.testing.assert_close(again(lips, mel), judge(lips, mel), atol=5e-3, rtol=0)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_bad_file_is_refused_with_the_reason(tmp_path):
    with pytest.raises(CheckpointError, match="compact_sync"):
        load_judge(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(CheckpointError, match="damaged"):
        load_judge(tmp_path / "broken.safetensors")
