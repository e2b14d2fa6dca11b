"""Stage 1: sound -> lip-motion codes. Trains the compact Wav2Vec2 and the audio network from landmarks alone.

A second head on the conv features tells the log-mel spectrum and is thrown away afterwards: it leads
the untrained convolutions to formants within minutes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.audio.features import SpeechFeatures
from engine.landmarks import mouth_opening
from engine.s3dnerf.audio_network import AudioNetwork
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.lip_motion import LipMotion
from tools.training.clips import SAMPLES_PER_FRAME, Clip
from tools.training.sounds import NoiseBank, cut_windows, mix, shape_spectrum

MEL_BANDS = 40


@dataclass(frozen=True, kw_only=True)
class AudioRecipe:
    minutes: float = 20.0
    batch: int = 128
    rate: float = 1.5e-3
    weight_decay: float = 1e-2
    mel_weight: float = 0.2
    quiet_share: float = 0.08  # rows with noise alone, whose target is the closed mouth
    seed: int = 0


class AudioBranch(nn.Module):
    """Speech features and audio network together: what this stage trains."""

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        self.features = SpeechFeatures(config.audio)
        self.network = AudioNetwork(config)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(self.features(window))


def closed_code(clips: list[Clip], motion: LipMotion) -> np.ndarray:
    """The code of a closed mouth, float32 [K]: the mean over each clip's fifth of smallest openings."""
    rows = []
    for clip in clips:
        order = np.argsort(mouth_opening(clip.landmarks))
        rows.append(motion.codes(clip.landmarks)[order[: max(3, len(order) // 5)]].mean(0))
    return np.mean(rows, 0).astype(np.float32)


class Windows:
    """All frames of all clips as (sound, end of window, codes)."""

    def __init__(self, clips: list[Clip], motion: LipMotion, config: S3DConfig) -> None:
        self.length = config.audio.window_samples
        self.lookahead = config.audio.lookahead_ms * 16
        gap = np.zeros(self.length * 2, np.float32)
        sounds, ends, codes, begin = [gap], [], [], len(gap)
        for clip in clips:
            level = np.sqrt((clip.sound**2).mean()) + 1e-4
            sounds += [clip.sound / level * 0.06, gap]
            ends.append(begin + np.arange(len(clip)) * SAMPLES_PER_FRAME + self.lookahead)
            codes.append(motion.codes(clip.landmarks))
            begin += len(clip.sound) + len(gap)
        self.sound = torch.from_numpy(np.concatenate(sounds))
        self.ends = torch.from_numpy(np.concatenate(ends))
        self.codes = torch.from_numpy(np.concatenate(codes))
        self.closed = torch.from_numpy(closed_code(clips, motion))

    def draw(self, recipe: AudioRecipe, noises: NoiseBank, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of augmented windows [B, samples] and their codes [B, K]."""
        pick = torch.from_numpy(rng.integers(0, len(self.ends), recipe.batch))
        speed = torch.from_numpy(np.exp(rng.uniform(np.log(0.8), np.log(1.3), recipe.batch)).astype(np.float32))
        sound = cut_windows(self.sound, self.ends[pick], speed, self.length, self.lookahead)
        codes = self.codes[pick].clone()
        quiet = torch.from_numpy(rng.random(recipe.batch) < recipe.quiet_share)
        sound[quiet], codes[quiet] = 0.0, self.closed
        noise = noises.draw(recipe.batch, rng)
        noise[quiet] *= torch.from_numpy(rng.uniform(0, 8, (int(quiet.sum()), 1)).astype(np.float32))
        return mix(shape_spectrum(sound, rng), noise, rng), codes


def log_mel(window: Tensor, steps: int) -> Tensor:
    """The spectrum that the second head tells: [B, samples] -> [B, steps, 40], its mean over the window removed."""
    spectrum = torch.stft(window, 400, 320, 400, torch.hann_window(400), center=False, return_complex=True).abs()
    edges = torch.logspace(np.log10(2), np.log10(195), MEL_BANDS + 1).long()
    bands = torch.stack(
        [
            spectrum[:, a : max(a + 1, b)].pow(2).mean(1)
            for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ],
        2,
    )
    mel = torch.log(bands[:, :steps] + 1e-5)
    return (mel - mel.mean((1, 2), keepdim=True)) / 3


@torch.inference_mode()
def predict_codes(branch: AudioBranch, clip: Clip, config: S3DConfig) -> tuple[Tensor, Tensor]:
    """A clip's driving features [n, tokens, width] and codes [n, K], from its own sound."""
    lookahead = config.audio.lookahead_ms * 16
    ends = torch.arange(len(clip)) * SAMPLES_PER_FRAME + lookahead + config.audio.window_samples
    pad = np.zeros(config.audio.window_samples, np.float32)
    sound = torch.from_numpy(np.concatenate([pad, clip.sound, pad]))
    windows = torch.stack([sound[e - config.audio.window_samples : e] for e in ends.tolist()])
    return branch(windows)


def measure(branch: AudioBranch, clips: list[Clip], motion: LipMotion, config: S3DConfig) -> tuple[float, float]:
    """(correlation of opening, spread of the predicted opening / the real one's), mean over clips.

    Opening is read from the codes: distance of the inner lips' centres in the moved lips.
    """
    branch.eval()
    correlation, spread = [], []
    for clip in clips:
        _, codes = predict_codes(branch, clip, config)
        told, real = (opening_of(motion, c) for c in (codes.numpy(), motion.codes(clip.landmarks)))
        correlation.append(np.corrcoef(told, real)[0, 1])
        spread.append(told.std() / real.std())
    branch.train()
    return float(np.mean(correlation)), float(np.mean(spread))


def opening_of(motion: LipMotion, codes: np.ndarray) -> np.ndarray:
    """Codes [n, K] -> how much farther apart the inner lips are than closed, [n] eye distances."""
    from engine.landmarks import LIPS, LOWER_LIP, UPPER_LIP

    moved = motion.offsets(codes)
    upper, lower = (int(np.flatnonzero(LIPS == point)[0]) for point in (UPPER_LIP, LOWER_LIP))
    return moved[:, lower, 1] - moved[:, upper, 1]


def train_audio(
    config: S3DConfig,
    recipe: AudioRecipe,
    clips: list[Clip],
    held_out: dict[str, list[Clip]],
    motion: LipMotion,
    recordings: list[np.ndarray],
    out: Path,
    *,
    resume: bool,
) -> AudioBranch:
    """Train until the recipe's minutes are over; the state is written every two minutes and at the end."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    branch, windows = AudioBranch(config), Windows(clips, motion, config)
    noises = NoiseBank(400, windows.length, recordings, rng)
    teller = nn.Linear(config.audio.conv_dim[-1], MEL_BANDS)
    optimiser = torch.optim.AdamW(
        [*branch.parameters(), *teller.parameters()], recipe.rate, weight_decay=recipe.weight_decay
    )
    step, spent = 0, 0.0
    if resume and out.exists():
        state = torch.load(out)
        branch.load_state_dict(state["branch"])
        teller.load_state_dict(state["teller"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    begin = written = time.monotonic() - spent
    written += spent
    while (now := time.monotonic()) - begin < recipe.minutes * 60:
        share = (now - begin) / (recipe.minutes * 60)
        for group in optimiser.param_groups:
            group["lr"] = float(recipe.rate * min(1.0, (step + 1) / 200) * (0.5 + 0.5 * np.cos(np.pi * share)))
        sound, codes = windows.draw(recipe, noises, rng)
        with torch.autocast("cpu", torch.bfloat16):
            conv = branch.features.convolve(sound)
            _, told = branch.network(branch.features.contextualise(conv))
            loss_mel = F.smooth_l1_loss(teller(conv).float(), log_mel(sound, conv.shape[1]))
        loss_codes = F.smooth_l1_loss(told.float(), codes)
        optimiser.zero_grad()
        (loss_codes + recipe.mel_weight * loss_mel).backward()
        nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 100 == 0:
            print(f"audio {step} {now - begin:.0f} s codes {loss_codes:.4f} mel {loss_mel:.4f}", flush=True)
        if now - written > 120:
            written = now
            scores = {name: measure(branch, some, motion, config) for name, some in held_out.items()}
            print("audio", step, {n: f"corr {c:.3f} spread {s:.2f}" for n, (c, s) in scores.items()}, flush=True)
            _write(out, branch, teller, optimiser, step, now - begin)
    _write(out, branch, teller, optimiser, step, recipe.minutes * 60)
    return branch.eval()


def _write(
    out: Path, branch: AudioBranch, teller: nn.Module, optimiser: torch.optim.Optimizer, step: int, spent: float
) -> None:
    state = dict(branch=branch.state_dict(), teller=teller.state_dict(), optimiser=optimiser.state_dict())
    torch.save(state | dict(step=step, spent=spent), out.with_suffix(".part"))
    out.with_suffix(".part").replace(out)
