"""Every stage of training runs, learns and goes on where it was, on a clip made of the default portrait."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from engine.landmarks import LIPS
from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.config import compact
from engine.s3dnerf.lip_motion import fit_lip_motion
from engine.s3dnerf.model import S3DNerf
from tools.training.audio_stage import AudioRecipe, opening_of, predict_codes, train_audio
from tools.training.clips import Clip
from tools.training.deform_stage import DeformRecipe, landmark_error, stack, train_deform
from tools.training.faces import frame_pair, make_track
from tools.training.render_stage import RenderRecipe, train_render
from tools.training.sync_stage import SyncRecipe, load_judge, train_sync

torch.set_num_threads(2)
FRAMES = 40
LOWER_LIP = [95, 88, 178, 87, 14, 317, 402, 318, 324, 146, 91, 181, 84, 17, 314, 405, 321, 375]


@pytest.fixture(scope="module")
def portrait():
    return read_portrait((DEFAULT_CHECKPOINT.parent / "default_portrait.jpg").read_bytes())


@pytest.fixture(scope="module")
def clip(portrait) -> Clip:
    """The portrait's lips open and shut four times; the sound is loud while they are open."""
    opening = (1 - np.cos(np.arange(FRAMES) / FRAMES * 8 * np.pi)) / 2
    landmarks = np.repeat(portrait.landmarks[None], FRAMES, 0)
    landmarks[:, LOWER_LIP, 1] += 0.1 * opening[:, None]
    landmarks += np.random.default_rng(0).normal(0, 1e-3, landmarks.shape)
    jpeg = cv2.imencode(".jpg", portrait.crop[..., ::-1])[1].reshape(-1)
    sound = np.random.default_rng(1).standard_normal(FRAMES * 640) * 0.1 * np.repeat(opening, 640)
    return Clip(
        name="made",
        data=np.concatenate([jpeg] * FRAMES),
        offsets=np.arange(FRAMES + 1) * len(jpeg),
        landmarks=landmarks.astype(np.float32),
        sound=sound.astype(np.float32),
    )


@pytest.fixture(scope="module")
def motion(clip):
    return fit_lip_motion([clip.landmarks], codes=8)


@pytest.fixture(scope="module")
def still(clip) -> Clip:
    return Clip(
        name="still", data=clip.data, offsets=clip.offsets[:2], landmarks=clip.landmarks[:1], sound=clip.sound[:0]
    )


def test_codes_tell_how_far_the_lips_are_open(clip, motion):
    told = opening_of(motion, motion.codes(clip.landmarks))
    real = np.linalg.norm(clip.landmarks[:, 13, :2] - clip.landmarks[:, 14, :2], axis=1)
    assert np.corrcoef(told, real)[0, 1] > 0.98


def test_audio_stage_runs_and_goes_on(clip, motion, tmp_path):
    recipe = AudioRecipe(minutes=0.05, batch=8)
    out = tmp_path / "audio.pt"
    train_audio(compact(), recipe, [clip], {}, motion, [], out, resume=False)
    first = torch.load(out)["step"]
    branch = train_audio(compact(), replace(recipe, minutes=0.1), [clip], {}, motion, [], out, resume=True)
    assert torch.load(out)["step"] > first > 0
    driving, codes = predict_codes(branch, clip, compact())
    assert driving.shape == (FRAMES, 8, 128) and codes.shape == (FRAMES, 8)


def test_deform_stage_learns_to_lead_back_to_the_source(clip, still, motion, tmp_path):
    tracks, stills = [make_track(clip, motion)], [make_track(still, motion)]
    field = train_deform(compact(), DeformRecipe(minutes=0.25, batch=8), tracks, stills, motion, tmp_path / "deform.pt")
    batch = stack([frame_pair(tracks[0], target, 0) for target in range(5, FRAMES, 5)])
    from engine.s3dnerf.geometry import anchor_of

    with torch.inference_mode():
        silent = torch.zeros(len(batch["drive"]), 8, 128)
        lattice = field(batch["drive"], silent, None, anchor_of(batch["source"]))
        error, held = landmark_error(field, lattice, batch)
    lips = (slice(None), torch.from_numpy(LIPS), slice(0, 2))
    assert error[lips].pow(2).mean() < 0.7 * held[lips].pow(2).mean()


def test_render_stage_runs_goes_on_and_takes_the_sync_loss(clip, still, motion, tmp_path):
    tracks, stills = [make_track(clip, motion)], [make_track(still, motion)]
    driving = [torch.randn(FRAMES, 8, 128)]
    train_sync(SyncRecipe(minutes=0.02, clips=2), [clip], driving, tmp_path / "sync.pt")
    out = tmp_path / "render.pt"
    recipe = RenderRecipe(minutes=0.05, sources=2, targets=5, in_a_row=True)
    train_render(S3DNerf(compact()), recipe, tracks, stills, driving, motion, out, resume=False)
    first = torch.load(out)["step"]
    model, judge = S3DNerf(compact(sync_loss=True)), load_judge(tmp_path / "sync.pt")
    before = {name: value.clone() for name, value in model.audio.state_dict().items()}
    longer = replace(recipe, minutes=0.15)
    train_render(model, longer, tracks, stills, driving, motion, out, resume=True, judge=judge)
    assert torch.load(out)["step"] > first > 0
    assert set(before) == set(model.audio.state_dict())
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_sync_loss_without_a_judge_is_refused(clip, motion, tmp_path):
    with pytest.raises(ValueError, match="discriminator"):
        train_render(S3DNerf(compact(sync_loss=True)), RenderRecipe(), [], [], [], motion, tmp_path / "x", resume=False)
