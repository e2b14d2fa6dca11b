"""Stage 1 of training: batches hold what they say, and a resumed run is the unbroken one."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.s3dnerf.config import AudioConfig, compact
from engine.s3dnerf.lip_motion import LipMotion
from tools.training.audio_stage import AudioRecipe, AudioStage, hear_sound
from tools.training.loop import Run, train
from tools.training.not_speech import NoiseBank
from tools.training.utterances import LEVEL, Cut, Diet, Utterance, Utterances

RATE = 16_000
AUDIO = AudioConfig()
ALL = Diet(shares=(1.0,))


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


def make_utterance(seconds: float = 2.0, seed: int = 0) -> Utterance:
    rng = np.random.default_rng(seed)
    frames = int(seconds * 25)
    codes = np.repeat(np.arange(frames, dtype=np.float32)[:, None], 8, 1)  # a code tells its frame
    spans = np.array([[0.5, 0.6], [0.6, 0.8], [1.5, 1.6]], np.float32)
    sound = rng.standard_normal(int(seconds * RATE)).astype(np.float32)
    return Utterance(sounds=[sound], codes=codes, phones=np.array([3, 5, 7]), spans=spans, trust=0.5)


class Silent(NoiseBank):
    def draw(self, count, rng):
        return torch.zeros(count, self._length)


def make_pool(cut: Cut) -> Utterances:
    noises = Silent(2, cut.samples(AUDIO), [], np.random.default_rng(0))
    return Utterances([[make_utterance()]], np.full(8, -1, np.float32), AUDIO, cut, noises)


def test_windows_of_a_segment_stand_where_their_codes_are():
    cut = Cut(windows=4, apart=5)
    batch = make_pool(cut).draw(6, np.random.default_rng(0), ALL)
    assert batch.sound.shape == (6, cut.samples(AUDIO)) and batch.codes.shape == (24, 8)
    at = batch.codes[:, 0].reshape(6, 4)
    hops = at.diff(dim=1)[batch.trust.reshape(6, 4)[:, 1:] > 0]
    assert (hops < 2.5 * 1.2 + 0.1).all() and hops.max() > 2.5 * 0.85 - 0.1  # 100 ms of sound, 2.5 frames
    assert set(batch.trust.tolist()) <= {0.0, 0.5}


def test_phones_are_those_within_the_window():
    cut = Cut(windows=8, apart=5)
    batch = make_pool(cut).draw(12, np.random.default_rng(1), ALL)
    at = 0
    for row in range(len(batch.codes)):
        phones = batch.phones[at : at + batch.lengths[row]].tolist()
        at += int(batch.lengths[row])
        assert phones == sorted(phones) and set(phones) <= {3, 5, 7}
        now = batch.codes[row, 0].item() / 25
        if 0.1 < now < 1.9 and 5 in phones:  # said at 0.7 s: heard from 120 ms before to half a second behind
            assert 0.7 - 0.12 * 1.2 <= now + 0.04 and now - 0.04 <= 0.7 + 0.53 * 1.2
    assert at == len(batch.phones) and at > 0


def test_sound_is_cut_at_the_instant():
    """A click at 1 s, level aside, lies in each segment where the first window's code says, on the sample."""
    cut = Cut(windows=1)
    one = make_utterance()
    click = np.zeros(2 * RATE, np.float32)
    click[RATE : RATE + 16] = 1
    noises = Silent(2, cut.samples(AUDIO), [], np.random.default_rng(0))
    pool = Utterances([[replace(one, sounds=[click])]], np.zeros(8, np.float32), AUDIO, cut, noises)
    checked = 0
    for seed in range(40):
        batch = pool.draw(1, np.random.default_rng(seed), ALL)
        now = batch.codes[0, 0].item() / 25
        found = int(batch.sound[0].abs().argmax())
        instant = AUDIO.window_samples - AUDIO.lookahead_ms * 16
        if batch.trust[0] > 0 and batch.sound[0].abs().max() > 0.01:
            assert abs(found - instant - (1 - now) * RATE) < 20
            checked += 1
    assert checked >= 10 and LEVEL > 0


def test_other_sound_wants_the_closed_mouth():
    batch = make_pool(Cut(windows=3)).draw(2, np.random.default_rng(0), Diet(shares=(0.0,)))
    assert (batch.codes == -1).all() and (batch.trust == 1).all()
    assert (batch.speech == 0).all() and (batch.lengths == 0).all()


def make_stage(steps: int) -> AudioStage:
    motion = LipMotion(
        basis=np.linalg.qr(np.random.default_rng(0).standard_normal((80, 8)))[0].T.astype(np.float32),
        scale=np.ones(8, np.float32),
        guess=np.zeros((9, 8), np.float32),
        gap_mean=np.zeros(9, np.float32),
    )
    recipe = AudioRecipe(steps=steps // 2, polish_steps=steps - steps // 2, segments=3, cut=Cut(windows=2))
    groups = [[make_utterance(seed=s)] for s in range(3)]
    return AudioStage(compact(), recipe, groups, np.zeros(8, np.float32), motion, [], lambda branch: "")


def test_a_resumed_run_is_the_unbroken_one(tmp_path):
    stage = make_stage(4)
    assert train(stage, Run(out=tmp_path / "whole.pt"))
    broken = Run(out=tmp_path / "broken.pt", stop_at=time.monotonic())
    assert not train(make_stage(4), broken)
    assert 0 < torch.load(broken.out)["step"] < 4
    resumed = make_stage(4)
    assert train(resumed, Run(out=broken.out, resume=True))
    for name, whole in stage.branch.state_dict().items():
        torch.testing.assert_close(resumed.branch.state_dict()[name], whole, msg=name)


def test_a_branch_hears_a_sound_frame_by_frame():
    branch = make_stage(1).branch.eval()
    driving, codes = hear_sound(branch, np.zeros(RATE, np.float32), 25, compact())
    assert driving.shape == (25, 8, 128) and codes.shape == (25, 8)
