import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.s3dnerf.geometry import CROP_PX, box_grid
from engine.s3dnerf.sync_discriminator import HEARD_SAMPLES, SyncDiscriminator, crop_lips, freeze, lip_boxes, log_mel
from tools.training.loop import Run, train
from tools.training.sync_rows import SyncRows, change_throat, sound_around
from tools.training.sync_stage import SyncRecipe, SyncStage, load_sync_state, made_sync_loss

RECIPE = SyncRecipe(steps=4, clips=2, moments=4, warm_up=1)
NOISE = [np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * 0.1]


def test_rows_are_lips_and_the_sound_about_them(clip):
    batch = SyncRows([clip], NOISE, 2, 4, 5).draw(np.random.default_rng(0), 0)
    assert batch["lips"].shape == (8, 5, 48, 64) and batch["lips"].abs().max() <= 1
    assert batch["mel"].shape == (8, 80, 32) and torch.isfinite(batch["mel"]).all()


def test_the_sound_of_a_frame_is_about_its_middle():
    sound = np.arange(75 * 640, dtype=np.float32)
    first, middle, last = sound_around(sound, np.array([0, 40, 74]))
    assert middle[HEARD_SAMPLES // 2] == 40 * 640 + 320
    assert first[HEARD_SAMPLES // 2] == 320 and not first[: HEARD_SAMPLES // 2 - 320].any()
    assert last[HEARD_SAMPLES // 2] == 74 * 640 + 320 and not last[HEARD_SAMPLES // 2 + 320 :].any()


def test_sound_before_the_first_frame_and_after_the_last_is_silence():
    early, late = sound_around(np.ones(640, np.float32), np.array([-15, 15]))
    assert not early.any() and not late.any()


def test_another_throat_moves_formants_not_time():
    power = torch.full((64, 80, 32), 1e-4)
    power[:, 40, 16] = 1.0
    changed = change_throat(power, np.random.default_rng(0))
    bands = changed.sum(2).argmax(1)
    assert bands.min() < 38 and bands.max() > 42
    assert (changed.sum(1).argmax(1) - 16).abs().max() <= 1


def test_a_clip_too_short_is_refused(still_clip):
    with pytest.raises(ValueError, match="as long as 17 frames"):
        SyncRows([still_clip], [], 1, 4, 5)


def test_a_resumed_run_is_the_unbroken_one(clip, tmp_path):
    unbroken, broken = tmp_path / "a.pt", tmp_path / "b.pt"
    assert train(SyncStage(RECIPE, [clip], NOISE), Run(out=unbroken))
    assert not train(SyncStage(RECIPE, [clip], NOISE), Run(out=broken, stop_at=0.0))
    assert train(SyncStage(RECIPE, [clip], NOISE), Run(out=broken, resume=True))
    first, second = (load_sync_state(path).state_dict() for path in (unbroken, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_of_made_mouths_is_the_judge_s_of_the_whole_picture(clip):
    torch.manual_seed(0)
    judge = freeze(SyncDiscriminator())
    landmarks = torch.from_numpy(clip.landmarks[8:18])
    pictures = F.interpolate(torch.rand(10, 3, 16, 16) * 2 - 1, size=(CROP_PX, CROP_PX), mode="bilinear")
    sound = torch.from_numpy(sound_around(clip.sound, np.array([10, 15])))
    wanted = 1 - judge(crop_lips(pictures, lip_boxes(landmarks, 5)).unflatten(0, (2, 5)), log_mel(sound))

    centre = torch.round((landmarks[:, 13, :2] + 1) * 128) / 128 - 1
    extent = 112 / CROP_PX
    fine = F.grid_sample(pictures, box_grid(centre, extent, 112), align_corners=False).requires_grad_(True)
    batch = dict(target=landmarks, sound=sound)
    loss = made_sync_loss(judge, fine, centre, extent, batch)
    torch.testing.assert_close(loss, wanted.mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(
        loss, made_sync_loss(judge, fine, centre, extent, dict(target=landmarks, mel=log_mel(sound)))
    )
    loss.backward()
    assert fine.grad is not None and fine.grad.abs().sum() > 0


def test_says_what_to_run_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="compact_sync"):
        load_sync_state(tmp_path / "sync.pt")
