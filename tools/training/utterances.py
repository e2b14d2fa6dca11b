"""What stage 1 listens to: spoken pieces with the lip motion and the phones that go with them, cut into batches.

A row of a batch is a segment of sound in which several windows lie one behind the other, so that the
convolutions over what they share run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.config import AudioConfig
from tools.training.not_speech import NoiseBank
from tools.training.phones import SAMPLE_RATE_HZ
from tools.training.sounds import begin_or_end, mix, shape_spectrum

FPS = 25
LEVEL = 0.08  # root mean square that every piece is brought to
QUIET_DB = (-60.0, -8.0)  # root mean square of rows without speech


@dataclass(frozen=True, kw_only=True)
class Utterance:
    sounds: list[np.ndarray]  # float32 [samples] each: the piece itself and its variants, in time with it
    codes: np.ndarray  # float32 [frames, K], 25 a second
    phones: np.ndarray  # int64 [n]
    spans: np.ndarray  # float32 [n, 2] s
    trust: float  # weight of its codes in the loss


class Batch(NamedTuple):
    """S segments with W windows each, N = S * W rows in all."""

    sound: Tensor  # float32 [S, samples]
    codes: Tensor  # float32 [N, K]
    trust: Tensor  # float32 [N], weight of the codes
    speech: Tensor  # float32 [N]: 1 speech, 0 other sound, NaN neither for certain
    phones: Tensor  # int64 [all], the rows' phones one row behind the other
    lengths: Tensor  # int64 [N], how many of them are each row's


@dataclass(frozen=True, kw_only=True)
class Diet:
    """What a batch is made of."""

    shares: tuple[float, ...] = (0.58, 0.15, 0.07)  # clips, synthetic voices, digits; the rest is no speech
    plain: float = 0.8  # share of the clips' pieces that are heard as they were recorded
    coloured: float = 0.25  # share of the rows that are heard through another microphone
    noisy: float = 0.1  # share of the rows that stand in noise


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How windows lie in a segment."""

    windows: int = 2
    apart: int = 25  # features from one window to the next

    def samples(self, audio: AudioConfig) -> int:
        return audio.window_samples + (self.windows - 1) * self.apart * audio.stride_samples


class Utterances:
    """Groups of utterances, drawn from by a ``Diet``'s shares; what is left over is sound without speech."""

    def __init__(
        self,
        groups: Sequence[list[Utterance]],
        closed: np.ndarray,
        audio: AudioConfig,
        cut: Cut,
        noises: NoiseBank,
    ) -> None:
        self._groups = groups
        self._closed, self._audio, self._cut, self._noises = closed, audio, cut, noises
        self._gap = np.zeros(2 * cut.samples(audio), np.float16)
        self._begins: dict[int, int] = {}
        parts, at = [self._gap], len(self._gap)
        for group in self._groups:
            for one in group:
                for sound in one.sounds:
                    self._begins[id(sound)] = at
                    level = np.sqrt((sound**2).mean()) + 1e-4
                    parts += [(sound / level * LEVEL).astype(np.float16), self._gap]
                    at += len(sound) + len(self._gap)
        self._sound = torch.from_numpy(np.concatenate(parts))

    def draw(self, segments: int, rng: np.random.Generator, diet: Diet) -> Batch:
        rows = [self._draw_segment(rng, diet) for _ in range(segments)]
        sound = torch.stack([row.sound for row in rows])
        quiet = torch.tensor([row.speech[0].item() == 0 for row in rows])
        noise = self._noises.draw(segments, rng)
        elsewhere = torch.from_numpy(rng.random((segments, 1)) < diet.coloured)
        sound = mix(torch.where(elsewhere, shape_spectrum(sound, rng), sound), noise, diet.noisy, rng)
        loud = torch.from_numpy(10 ** (rng.uniform(*QUIET_DB, (segments, 1)) / 20)).float()
        other = shape_spectrum(begin_or_end(noise, rng), rng) * loud  # as loud as speech, or hardly there
        sound[quiet] = other[quiet].clamp(-1, 1)
        return Batch(sound, *(torch.cat(parts) for parts in list(zip(*rows, strict=True))[1:]))

    def _draw_segment(self, rng: np.random.Generator, diet: Diet) -> Batch:
        kind = rng.random()
        for share, group in zip(diet.shares, self._groups, strict=True):
            if kind < share and group:
                one = group[rng.integers(len(group))]
                plain = len(one.sounds) == 1 or rng.random() < diet.plain
                return self._cut_out(one, 0 if plain else int(rng.integers(1, len(one.sounds))), rng)
            kind -= share
        count = self._cut.windows
        return Batch(
            torch.zeros(self._cut.samples(self._audio)),
            torch.from_numpy(self._closed).repeat(count, 1),
            torch.ones(count),
            torch.zeros(count),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(count, dtype=torch.int64),
        )

    def _cut_out(self, one: Utterance, variant: int, rng: np.random.Generator) -> Batch:
        audio, cut = self._audio, self._cut
        hop_s = cut.apart * audio.stride_samples / SAMPLE_RATE_HZ
        length_s = (len(one.codes) - 1) / FPS
        first = rng.uniform(-0.1, max(0.0, length_s - (cut.windows - 1) * hop_s) + 0.1)
        instants = first + np.arange(cut.windows) * hop_s
        inside = (instants >= 0) & (instants <= length_s)
        past = (audio.window_samples - audio.lookahead_ms * SAMPLE_RATE_HZ // 1000) / SAMPLE_RATE_HZ
        sound = self._play(one.sounds[variant], first - past)
        at = np.clip(instants, 0, length_s) * FPS
        low = np.minimum(at.astype(int), len(one.codes) - 2)
        codes = one.codes[low] + (one.codes[low + 1] - one.codes[low]) * (at - low)[:, None]
        phones, lengths, speaks = [], [], []
        middles = one.spans.mean(1) if len(one.spans) else np.zeros(0)
        for instant in instants:
            begin, end = instant - past + 0.02, instant + audio.lookahead_ms / 1000 - 0.02
            heard = one.phones[(middles > begin) & (middles < end)]
            phones.append(heard)
            lengths.append(len(heard))
            speaks.append(1.0 if (np.abs(middles - instant) < 0.1).any() else np.nan)
        return Batch(
            sound,
            torch.from_numpy(codes.astype(np.float32)),
            torch.from_numpy((inside * one.trust).astype(np.float32)),
            torch.tensor(speaks, dtype=torch.float32),
            torch.from_numpy(np.concatenate(phones).astype(np.int64)),
            torch.tensor(lengths),
        )

    def _play(self, sound: np.ndarray, begin_s: float) -> Tensor:
        """A segment of one sound from ``begin_s`` on, its samples as they are; silence around it."""
        start = self._begins[id(sound)]
        at = start + round(begin_s * SAMPLE_RATE_HZ) + torch.arange(self._cut.samples(self._audio))
        return self._sound[at.clamp(start - len(self._gap), start + len(sound) + len(self._gap) - 1)].float()
