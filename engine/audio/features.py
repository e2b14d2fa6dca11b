"""Wav2Vec2 features of speech, offline over a window and streaming, equal to each other.

The compact encoder normalises each step over its channels only (``feat_extract_norm="layer"``) and its
convolutions take no padding, so a feature depends on its own samples alone (62 ms): each is computed once,
when its sound has arrived, and kept. The transformer then runs over the newest window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.audio.log_mel import LogMelLayer
from engine.audio.wav2vec2 import Wav2Vec2
from engine.errors import CheckpointError

if TYPE_CHECKING:
    from engine.s3dnerf.config import AudioConfig

FIRST_FILTERS = "feature_extractor.conv_layers.0.conv.weight"


class SpeechFeatures(nn.Module):
    """Wav2Vec2 in two parts: ``convolve`` (see ``FeatureStream``) and ``contextualise`` (a window at a time)."""

    def __init__(self, config: AudioConfig, *, pretrained: bool = False) -> None:
        """Build the encoder of ``config``'s shape.

        Args:
            config: its shape.
            pretrained: begin with the published weights that ``config.pretrained`` names (from
                transformers' cache, a folder or its hub) instead of untrained ones.

        Raises:
            CheckpointError: these weights cannot be had.
        """
        super().__init__()
        self.config = config
        if pretrained and config.pretrained:
            self.encoder = _load_pretrained(config)
            return
        self.encoder = Wav2Vec2(config)
        if config.log_mel:
            first = LogMelLayer(config.conv_dim[0], config.conv_kernel[0], config.conv_stride[0])
            self.encoder.feature_extractor.conv_layers[0] = first
        elif config.layer_norm_features:
            _start_from_bandpass_filters(self.encoder.get_parameter(FIRST_FILTERS))

    def convolve(self, sound: Tensor) -> Tensor:
        """Sound float32 [B, samples] in [-1, 1] -> conv features [B, T, conv_dim], one each 20 ms."""
        return self.encoder.feature_extractor(sound).transpose(1, 2)

    def contextualise(self, features: Tensor) -> Tensor:
        """Conv features [B, T, conv_dim] -> context features [B, T, hidden]."""
        return self.encoder.encoder(self.encoder.feature_projection(features))

    def forward(self, window: Tensor) -> Tensor:
        """A window of sound [B, window_samples] -> [B, window_features, hidden]."""
        return self.contextualise(self.convolve(window))


class FeatureStream:
    """Conv features of many streams, each new one computed once; slabs indexed by slot.

    A stream that has heard nothing has heard silence. Where the encoder normalises over time (as
    wav2vec2-base does), no feature outlives its window: then the window's sound is kept and all is computed anew.
    """

    def __init__(self, features: SpeechFeatures, slots: int) -> None:
        config = features.config
        self._features = features
        self._stride = config.stride_samples
        self._span = config.receptive_samples if config.layer_norm_features else config.window_samples
        self._keep = self._span - config.stride_samples  # samples that the next features need again
        self._anew = not config.layer_norm_features
        with torch.inference_mode():
            silence = features.convolve(torch.zeros(1, config.window_samples))
        self._silence = silence[0]  # [T, C]
        self._tail = torch.zeros(slots, self._keep)
        self._window = self._silence.repeat(slots, 1, 1)

    def reset(self, slot: int) -> None:
        self._tail[slot] = 0
        self._window[slot] = self._silence

    def copy(self, slots: list[int]) -> tuple[Tensor, Tensor]:
        """What these streams have heard, for ``restore``."""
        return self._tail[slots], self._window[slots]

    def restore(self, slots: list[int], kept: tuple[Tensor, Tensor]) -> None:
        """Let these streams have heard what they had at ``copy``, and no more."""
        self._tail[slots], self._window[slots] = kept

    @torch.inference_mode()
    def push(self, slot: int, sound: Tensor) -> Tensor:
        """Hear float32 [n * 320] new samples; returns the slot's window of conv features [T, C] after them.

        Raises:
            ValueError: when the samples are not whole features.
        """
        if sound.shape[-1] % self._stride:
            raise ValueError(f"{sound.shape[-1]} samples are not a multiple of {self._stride}")
        sound = torch.cat([self._tail[slot], sound])
        if self._anew:
            sound = sound[-self._span :]
        new = self._features.convolve(sound[None])[0]
        self._tail[slot] = sound[-self._keep :]
        self._window[slot] = torch.cat([self._window[slot], new])[-len(self._silence) :]
        return self._window[slot]

    @torch.inference_mode()
    def push_rows(self, slots: Sequence[int], sounds: Sequence[Tensor]) -> Tensor:
        """``push`` for several streams at once: their windows [B, T, C]."""
        lengths = {sound.shape[-1] for sound in sounds}
        if len(lengths) > 1 or self._anew:  # seldom: somebody fell behind, and hears all that he missed
            return torch.stack([self.push(slot, sound) for slot, sound in zip(slots, sounds, strict=True)])
        if lengths.pop() % self._stride:
            raise ValueError(f"{sounds[0].shape[-1]} samples are not a multiple of {self._stride}")
        at = torch.tensor(slots)
        heard = torch.cat([self._tail[at], torch.stack(list(sounds))], 1)
        self._tail[at] = heard[:, -self._keep :]
        windows = torch.cat([self._window[at], self._features.convolve(heard)], 1)[:, -len(self._silence) :]
        self._window[at] = windows
        return windows


def _load_pretrained(config: AudioConfig) -> Wav2Vec2:
    """The published weights in a model of our settings: theirs would drop out and mask in training."""
    from transformers import Wav2Vec2Model  # only here: it takes seconds to import

    name = config.pretrained
    assert name
    try:
        weights = Wav2Vec2Model.from_pretrained(name).state_dict()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the Wav2Vec2 weights {name!r} cannot be loaded ({str(error).splitlines()[0]}); fetch them on a machine "
            f"with network access and give their folder, or use the compact configuration"
        ) from error
    weights.pop("masked_spec_embed", None)  # stands in for masked steps, of which we have none
    model = Wav2Vec2(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the Wav2Vec2 weights {name!r} have other sizes than the configuration; take wav2vec2-base for the "
            f"paper's ({str(error).splitlines()[1].strip()[:120]})"
        ) from error
    return model


def _start_from_bandpass_filters(weight: Tensor) -> None:
    """Fill the first convolution [C, 1, kernel] with windowed sines, mel-spaced from 80 Hz to 7 kHz.

    From random filters the small training set does not find formants; it refines these.
    """
    channels, _, kernel = weight.shape
    mel = torch.linspace(0, 1, channels)
    low, high = 2595 * torch.log10(torch.tensor([1 + 80 / 700, 1 + 7000 / 700]))
    frequency = 700 * (10 ** ((low + (high - low) * mel) / 2595) - 1)
    time = (torch.arange(kernel) - kernel / 2) / 16_000
    phase = torch.where(torch.arange(channels) % 2 == 0, 0.0, torch.pi / 2)
    filters = torch.sin(2 * torch.pi * frequency[:, None] * time + phase[:, None]) * torch.hann_window(kernel)
    with torch.no_grad():
        weight.copy_((filters / filters.norm(dim=1, keepdim=True))[:, None] * 0.3)
