"""Stage 1: sound -> lip-motion codes and phones. Trains the compact Wav2Vec2 and the audio network without pictures.

A head on the context features helps and is thrown away afterwards: it spells the phones of the window (CTC),
which makes the features those of any voice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from tools.training.loop import cosine, half
from tools.training.not_speech import NoiseBank
from tools.training.phones import PHONES
from tools.training.utterances import Batch, Cut, Diet, Utterance, Utterances

WINDOWS_AT_ONCE = 512  # when a whole clip is heard


@dataclass(frozen=True, kw_only=True)
class AudioRecipe:
    steps: int = 1500
    segments: int = 96  # of a batch, each with ``cut.windows`` windows
    cut: Cut = Cut()
    rate: float = 1.2e-3
    weight_decay: float = 1e-2
    opening_weight: float = 0.5
    phone_weight: float = 0.15
    speech_weight: float = 0.4
    diet: Diet = Diet()
    polish_steps: int = 2700  # after the others: mostly the clips themselves, lips first
    polish_rate: float = 8e-4
    polish_diet: Diet = Diet(shares=(0.7, 0.06, 0.04), plain=0.9, coloured=0.2, noisy=0.08)
    polish_opening_weight: float = 1.0
    variants: int = 3  # of each clip: other throats, rooms and lines
    synthetic_minutes: float = 60.0
    freeze_features: bool = False  # take published speech features as they are; the network behind them learns
    seed: int = 0


class AudioBranch(nn.Module):
    """Speech features and audio network together: what this stage trains."""

    def __init__(self, config: S3DConfig, *, pretrained: bool = False) -> None:
        """``pretrained`` as in ``SpeechFeatures``."""
        super().__init__()
        self.features = SpeechFeatures(config.audio, pretrained=pretrained)
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


@torch.inference_mode()
def predict_codes(branch: AudioBranch, clip: Clip, config: S3DConfig) -> tuple[Tensor, Tensor]:
    """A clip's driving features [n, tokens, width] and codes [n, K], from its own sound."""
    return hear_sound(branch, clip.sound, len(clip), config)


@torch.inference_mode()
def hear_sound(branch: AudioBranch, sound: np.ndarray, frames: int, config: S3DConfig) -> tuple[Tensor, Tensor]:
    """Driving features [frames, tokens, width] and codes [frames, K] of float32 16 kHz sound, on the CPU."""
    window = config.audio.window_samples
    ends = torch.arange(frames) * SAMPLES_PER_FRAME + config.audio.lookahead_ms * 16 + window
    padded = torch.from_numpy(np.pad(sound, (window, window + frames * SAMPLES_PER_FRAME)).astype(np.float32))
    device = next(branch.parameters()).device
    driving, codes = [], []
    for part in ends.split(WINDOWS_AT_ONCE):
        told = branch(torch.stack([padded[end - window : end] for end in part.tolist()]).to(device))
        driving.append(told[0].cpu())
        codes.append(told[1].cpu())
    return torch.cat(driving), torch.cat(codes)


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


class Heads(nn.Module):
    """What helps stage 1 to learn and is thrown away after it."""

    def __init__(self, config: S3DConfig, motion: LipMotion) -> None:
        super().__init__()
        self.phones = nn.Linear(config.audio.hidden, PHONES + 1)  # the last one is CTC's blank
        self.opening: Tensor
        direction = torch.from_numpy(opening_of(motion, np.eye(config.codes, dtype=np.float32)))
        self.register_buffer("opening", direction / direction.norm(), persistent=False)

    def losses(self, branch: AudioBranch, batch: Batch, recipe: AudioRecipe) -> dict[str, Tensor]:
        """Every term by name, weighted."""
        with half(batch.sound.device):
            context = hear_windows(branch.features, batch.sound, recipe)
            _, told, speech = branch.network.hear(context)
            spelled = self.phones(context)
        miss = told.float() - batch.codes
        known = ~batch.speech.isnan()
        terms = {
            "codes": (_smooth_l1(miss).mean(1) * batch.trust).mean(),
            "opening": (_smooth_l1(miss @ self.opening) * batch.trust).mean() * recipe.opening_weight,
        }
        if recipe.phone_weight > 0:
            terms["phones"] = self._spell(spelled.float(), batch) * recipe.phone_weight
        if branch.network.gated and known.any():
            loss = F.binary_cross_entropy_with_logits(speech.float()[known], batch.speech[known])
            terms["speech"] = loss * recipe.speech_weight
        return terms

    def _spell(self, spelled: Tensor, batch: Batch) -> Tensor:
        rows = batch.lengths > 0
        if not rows.any():  # words are not timed in these clips, or nobody speaks
            return spelled.sum() * 0
        log_probability = spelled[rows].log_softmax(-1).transpose(0, 1)  # [T, rows, classes]
        steps = torch.full((int(rows.sum()),), log_probability.shape[0], device=rows.device)
        return F.ctc_loss(
            log_probability,
            batch.phones,
            steps,
            batch.lengths[rows],
            blank=PHONES,
            zero_infinity=True,
            reduction="mean",
        )


def hear_windows(features: SpeechFeatures, sound: Tensor, recipe: AudioRecipe) -> Tensor:
    """Context features [S * W, T, hidden] of every window of segments [S, samples]."""
    config, cut = features.config, recipe.cut
    with torch.set_grad_enabled(not recipe.freeze_features):
        if config.layer_norm_features:
            conv = features.convolve(sound)
            windows = conv.unfold(1, config.window_features, cut.apart).transpose(2, 3).flatten(0, 1)
        else:  # what is normalised over time hangs on where the sound begins and ends: as at run time, at the window
            hops = sound.unfold(1, config.window_samples, cut.apart * config.stride_samples)
            windows = features.convolve(hops.flatten(0, 1))
        return features.contextualise(windows)


def _smooth_l1(miss: Tensor) -> Tensor:
    return F.smooth_l1_loss(miss, torch.zeros_like(miss), reduction="none")


class AudioStage:
    """Stage 1 as ``loop.train`` runs it."""

    name = "audio"

    def __init__(
        self,
        config: S3DConfig,
        recipe: AudioRecipe,
        groups: list[list[Utterance]],
        closed: np.ndarray,
        motion: LipMotion,
        recordings: list[np.ndarray],
        report: Callable[[AudioBranch], str],
        device: torch.device | None = None,
    ) -> None:
        """Args:
        config: of the model.
        recipe: of this stage.
        groups: utterances of the clips, the synthetic voices and the digits (``voices.gather_utterances``).
        closed: codes of a closed mouth, float32 [K].
        motion: basis of the codes.
        recordings: sounds without speech to train with.
        report: what to say of the branch whenever the state is written.
        device: where it learns; None: the CPU.

        Raises:
        CheckpointError: the published weights that ``config`` names cannot be had.
        """
        torch.manual_seed(recipe.seed)
        self.steps, self.seed = recipe.steps + recipe.polish_steps, recipe.seed
        self._recipe, self._report = recipe, report
        self.branch, self._heads = AudioBranch(config, pretrained=True), Heads(config, motion)
        if self.branch.network.gated:
            with torch.no_grad():
                self.branch.network.closed.copy_(torch.from_numpy(closed))
        noises = NoiseBank(800, recipe.cut.samples(config.audio), recordings, np.random.default_rng(recipe.seed))
        self._utterances = Utterances(groups, closed, config.audio, recipe.cut, noises)
        self.branch, self._heads = self.branch.to(device), self._heads.to(device)
        self.branch.features.requires_grad_(not recipe.freeze_features)
        whole = [*self.branch.parameters(), *self._heads.parameters()]
        self._parameters = [p for p in whole if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, recipe.rate, weight_decay=recipe.weight_decay)

    def draw(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        recipe = self._recipe
        diet = recipe.polish_diet if step >= recipe.steps else recipe.diet
        return self._utterances.draw(recipe.segments, rng, diet)._asdict()

    def learn(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        recipe = self._recipe
        polishing = step >= recipe.steps
        rate = recipe.rate * cosine(step, recipe.steps, warm_up=200)
        if polishing:
            rate = recipe.polish_rate * cosine(step - recipe.steps, recipe.polish_steps, warm_up=50)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.branch.train()
        self.branch.features.train(not recipe.freeze_features)
        opening_weight = recipe.polish_opening_weight if polishing else recipe.opening_weight
        losses = self._heads.losses(self.branch, Batch(**batch), replace(recipe, opening_weight=opening_weight))
        self._optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        return losses

    def state(self) -> dict[str, Any]:
        return dict(
            branch=self.branch.state_dict(), heads=self._heads.state_dict(), optimiser=self._optimiser.state_dict()
        )

    def restore(self, state: dict[str, Any]) -> None:
        self.branch.load_state_dict(state["branch"])
        self._heads.load_state_dict(state["heads"])
        self._optimiser.load_state_dict(state["optimiser"])

    def show(self, path: Path) -> None:
        print(f"audio: {self._report(self.branch)}", flush=True)


def report(
    branch: AudioBranch,
    held_out: dict[str, list[Clip]],
    recordings: list[np.ndarray],
    motion: LipMotion,
    config: S3DConfig,
) -> str:
    """How well clips not trained on are told, and how much other sound moves the lips, as share of speech's spread."""
    said, speech = [], []
    for name, clips in held_out.items():
        correlation, spread = measure(branch, clips, motion, config)
        said.append(f"{name}: corr {correlation:.3f} spread {spread:.2f}")
        speech += [opening_of(motion, predict_codes(branch, c, config)[1].numpy()).std() for c in clips]
    branch.eval()
    moved = []
    for sound in recordings:
        codes = hear_sound(branch, sound, len(sound) // SAMPLES_PER_FRAME, config)[1]
        moved.append(opening_of(motion, codes.numpy()).std() / np.mean(speech))
    return "; ".join([*said, "other sound: " + " ".join(f"{share:.2f}" for share in moved)])
