"""Our Wav2Vec2 beside transformers'."""

import subprocess
import sys

import pytest
import torch

from engine.audio.wav2vec2 import Wav2Vec2
from engine.s3dnerf.config import AudioConfig
from tests.engine.audio.published import published_model

CONFIGS = [
    AudioConfig(),
    AudioConfig(position_kernel=16, conv_bias=True),
    AudioConfig(layer_norm_features=False, position_kernel=16),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_it_computes_what_the_published_one_computes(config):
    torch.manual_seed(0)
    published, ours = published_model(config), Wav2Vec2(config).eval()
    ours.load_state_dict(published.state_dict())
    sound = torch.randn(2, config.window_samples) * 0.1
    with torch.inference_mode():
        told = ours.encoder(ours.feature_projection(ours.feature_extractor(sound).transpose(1, 2)))
        torch.testing.assert_close(told, published(sound).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_untrained_weights_are_as_large_as_the_published_ones(config):
    torch.manual_seed(1)
    published, ours = published_model(config).state_dict(), Wav2Vec2(config).state_dict()
    assert published.keys() == ours.keys()
    for name, weight in published.items():
        if weight.numel() > 1000:
            assert float(ours[name].std()) == pytest.approx(float(weight.std()), rel=0.15), name


def test_the_engine_does_not_import_transformers():
    """It would take a server's start some seconds."""
    code = (
        "import sys, engine.s3dnerf.engine; sys.exit('transformers' in sys.modules or 'torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
