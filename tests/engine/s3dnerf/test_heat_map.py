"""The heat map of slots and speech (paper, equation 3) on the shipped checkpoint: it lights the lower face."""

import wave

import numpy as np
import torch

from engine.landmarks import LIPS
from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from engine.s3dnerf.cross_attention import heat_map

NOSE_TIP = 4


def test_speech_lights_the_lower_face():
    model = load_checkpoint().model
    assets = DEFAULT_CHECKPOINT.parent
    portrait = read_portrait((assets / "default_portrait.jpg").read_bytes())
    with wave.open(str(assets / "sample_speech.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    window = model.config.audio.window_samples
    windows = torch.from_numpy(np.stack([sound[at : at + window] for at in range(0, len(sound) - window, 1600)]))
    with torch.inference_mode():
        picture = torch.from_numpy(portrait.crop).permute(2, 0, 1)[None].float() / 127.5 - 1
        aggregate = model.enrol(picture, torch.from_numpy(portrait.landmarks)[None]).aggregate
        driving, _ = model.hear(model.features.convolve(windows))
        heat = heat_map(model.field.attend(aggregate.expand(len(windows), -1, -1), driving)).mean(0).numpy()
    side = len(heat)
    centre = (np.arange(side) + 0.5) / side * 2 - 1
    across, down = np.meshgrid(centre, centre)
    lips = portrait.landmarks[LIPS, :2]
    low, high = lips.min(0) - 0.05, lips.max(0) + 0.05
    mouth = (across > low[0]) & (across < high[0]) & (down > low[1]) & (down < high[1])
    above = (down < portrait.landmarks[NOSE_TIP, 1] - 0.1) & (np.abs(across) < 0.5)
    assert heat[mouth].mean() > 2 * np.abs(heat[above]).mean()
