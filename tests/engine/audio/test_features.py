"""Streaming features equal offline ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.api import EngineSpec
from engine.audio.features import FeatureStream, SpeechFeatures
from engine.audio.log_mel import STRETCHES, LogMelLayer, mel_bank
from engine.audio.window import SampleRing, window_of
from engine.errors import CheckpointError
from engine.s3dnerf.config import AudioConfig, compact
from tests.engine.audio.published import published_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def speech() -> SpeechFeatures:
    torch.manual_seed(0)
    return SpeechFeatures(compact().audio).eval()


@pytest.mark.parametrize("hops", [[1] * 40, [3, 1, 7, 2, 27], [40]])
def test_streaming_equals_offline_on_the_same_window(speech, hops):
    torch.manual_seed(1)
    sound = torch.randn(40 * 640) * 0.1
    stream = FeatureStream(speech, slots=2)
    begin = 0
    for count in hops:
        window = stream.push(1, sound[begin : begin + count * 640])
        begin += count * 640
    with torch.inference_mode():
        offline = speech.convolve(sound[-speech.config.window_samples :][None])[0]
        torch.testing.assert_close(window, offline, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            speech.contextualise(window[None]),
            speech(sound[-speech.config.window_samples :][None]),
            atol=1e-4,
            rtol=1e-3,
        )


def test_streaming_equals_offline_where_norms_look_over_time():
    """As wav2vec2-base's first layer does."""
    torch.manual_seed(2)
    speech = SpeechFeatures(AudioConfig(layer_norm_features=False)).eval()
    sound = torch.randn(20 * 640) * torch.linspace(0.01, 0.3, 20 * 640)
    stream = FeatureStream(speech, slots=1)
    for hop in sound.split(640):
        window = stream.push(0, hop)
    with torch.inference_mode():
        offline = speech.convolve(sound[-speech.config.window_samples :][None])[0]
    torch.testing.assert_close(window, offline, atol=1e-5, rtol=1e-4)


def test_a_stream_begins_in_silence(speech):
    stream = FeatureStream(speech, slots=1)
    sound = torch.randn(640) * 0.1
    window = stream.push(0, sound)
    padded = torch.cat([torch.zeros(speech.config.window_samples - 640), sound])
    with torch.inference_mode():
        torch.testing.assert_close(window, speech.convolve(padded[None])[0], atol=1e-5, rtol=1e-4)


def test_streams_do_not_hear_each_other(speech):
    stream = FeatureStream(speech, slots=2)
    alone = stream.push(0, torch.zeros(640)).clone()
    stream.reset(0)
    stream.push(1, torch.randn(640))
    torch.testing.assert_close(stream.push(0, torch.zeros(640)), alone, atol=0, rtol=0)


def test_reset_forgets(speech):
    stream = FeatureStream(speech, slots=1)
    first = stream.push(0, torch.ones(640) * 0.1).clone()
    stream.reset(0)
    torch.testing.assert_close(stream.push(0, torch.ones(640) * 0.1), first, atol=0, rtol=0)


def test_a_part_of_a_feature_is_refused(speech):
    with pytest.raises(ValueError, match="100 samples"):
        FeatureStream(speech, slots=1).push(0, torch.zeros(100))


def test_window_is_682_ms():
    audio = compact().audio
    assert (audio.stride_samples, audio.receptive_samples, audio.window_samples) == (320, 992, 10_912)


def test_the_spectrum_tells_pitch_and_loudness():
    layer = LogMelLayer(80, 512, 160).eval()
    time = torch.arange(4000) / 16_000
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (200.0, 1000.0, 4000.0)])[:, None]
    loud = layer(0.1 * tones)
    assert loud.shape == (3, 80, (4000 - 512) // 160 + 1)
    peaks = loud.mean(2).argmax(1)
    assert peaks[0] < peaks[1] < peaks[2]
    quiet = layer(0.01 * tones)
    steps = (loud - quiet).amax(1).mean(1)
    torch.testing.assert_close(steps, torch.full((3,), float(np.log(100) / 4)), atol=0.05, rtol=0)
    silence = layer(torch.zeros(1, 1, 4000))
    assert silence.isfinite().all() and (silence == silence.amin()).all()


@pytest.mark.parametrize("stretch", STRETCHES)
def test_every_band_hears_something(stretch):
    assert (mel_bank(80, 512, stretch).sum(0) > 0).all()


def test_in_training_each_row_has_another_throat():
    layer = LogMelLayer(80, 512, 160)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 16_000).expand(12, 1, -1)
    peaks = {mode: layer.train(mode)(tone).mean(2).argmax(1) for mode in (True, False)}
    assert len(set(peaks[True].tolist())) > 3 and len(set(peaks[False].tolist())) == 1
    assert mel_bank(80, 512, 1.2)[:, 40].argmax() > mel_bank(80, 512)[:, 40].argmax()


def test_published_weights_are_read_from_a_folder(tmp_path):
    """As facebook/wav2vec2-base-960h would be, whose weights are not fetched here."""
    audio = AudioConfig()
    torch.manual_seed(5)
    published = published_model(audio)
    published.save_pretrained(tmp_path)
    loaded = SpeechFeatures(replace(audio, pretrained=str(tmp_path)), pretrained=True).eval()
    window = torch.randn(1, audio.window_samples)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(window), published(window).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_weights_that_cannot_be_had_are_named(tmp_path):
    audio = replace(AudioConfig(), pretrained=str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="none"):
        SpeechFeatures(audio, pretrained=True)


def test_a_frame_hears_the_window_that_the_clock_gives_it(speech):
    """The live stream's features are those of ``audio/window.py``'s window of the same frame."""
    audio = compact().audio
    spec = EngineSpec(name="x", window_ms=audio.window_samples // 16, lookahead_ms=audio.lookahead_ms, max_batch=1)
    ring, stream = SampleRing(32_000), FeatureStream(speech, slots=1)
    sound = torch.randn(30 * spec.hop_samples) * 0.1
    for hop in range(30):
        samples = sound[hop * spec.hop_samples : (hop + 1) * spec.hop_samples]
        ring.write(hop * spec.hop_samples, samples.numpy())
        heard = stream.push(0, samples)
    window = torch.from_numpy(window_of(ring, spec.frame_after(30), spec))
    with torch.inference_mode():
        torch.testing.assert_close(heard, speech.convolve(window[None])[0], atol=1e-5, rtol=1e-4)
