"""What stage 1 hears is kept until stage 1 or the clips are others."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.s3dnerf.config import compact
from tools.training.audio_stage import AudioBranch, predict_codes
from tools.training.heard import calibrate, hear_clips


@pytest.fixture
def branch() -> AudioBranch:
    torch.manual_seed(0)
    return AudioBranch(compact()).eval()


def test_codes_are_widened_as_at_run_time(branch, clip, motion, tmp_path):
    (tmp_path / "audio.pt").touch()
    told = calibrate(branch, [clip], motion, compact())
    assert ((told.gain >= 1) & (told.gain <= 1.4)).all()
    heard = hear_clips(branch, [clip], told, compact(), tmp_path / "audio.pt", tmp_path / "driving.pt")
    driving, codes = predict_codes(branch, clip, compact())
    np.testing.assert_allclose(heard.codes[0], told.closed + (codes.numpy() - told.closed) * told.gain, atol=1e-5)
    assert (heard.driving[0] - driving).abs().max() < 1e-2


def test_a_newer_stage_1_or_other_clips_are_heard_anew(branch, clip, motion, tmp_path):
    audio, path = tmp_path / "audio.pt", tmp_path / "driving.pt"
    audio.touch()
    told = calibrate(branch, [clip], motion, compact())

    def hear(clips):
        return hear_clips(branch, clips, told, compact(), audio, path)

    hear([clip])
    torch.save(torch.load(path) | {"codes": [torch.zeros(40, 8)]}, path)
    assert np.allclose(hear([clip]).codes[0], told.widen(np.zeros(8)))  # what is kept is taken
    os.utime(audio, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
    assert not np.allclose(hear([clip]).codes[0], told.widen(np.zeros(8)))
    os.utime(path, ns=(audio.stat().st_mtime_ns + 10**9,) * 2)
    other = replace(clip, name="other")
    assert len(hear([clip, other]).codes) == 2
