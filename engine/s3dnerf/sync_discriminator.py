"""Lip-sync discriminator (paper, section 4): do these lips and this sound belong together?

Trained first on real clips, then frozen; the generator is rewarded for lips that it finds in sync. It hears
a log-mel spectrogram of its own, not the generator's features, so that it can also measure any talking face.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import CheckpointError
from engine.landmarks import LIPS
from engine.s3dnerf.encoder import conv_block

MARGIN = 0.5
LIP_HEIGHT, LIP_WIDTH = 48, 64  # px of a lip crop
BOX_HALF_WIDTH, BOX_HALF_HEIGHT = 0.48, 0.36  # eye distances, of the box that is cut
SAMPLE_RATE_HZ = 16_000
HEARD_SAMPLES = 5120  # 320 ms
MEL_BANDS, MEL_STEPS = 80, 32  # 100 a second
MEL_WINDOW, MEL_HOP = 512, 160  # samples
MEL_FLOOR = 1e-5

DEFAULT_JUDGE = Path(__file__).parent.parent / "assets" / "lip_sync_judge.safetensors"
FORMAT_VERSION = "1"


def mel_filters() -> Tensor:
    """Triangles, evenly spaced in mel from 40 Hz to 7.6 kHz: [80, 257]."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(40), mel(7600), MEL_BANDS + 2) / 2595) - 1)
    hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, MEL_WINDOW // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hz - low) / (middle - low), (high - hz) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0) / ((high - low) / 100)


def mel_power(sound: Tensor) -> Tensor:
    """320 ms of sound [B, 5120] -> energy in bands and steps [B, 80, 32]; what lies outside counts as silence."""
    if sound.shape[-1] != HEARD_SAMPLES:
        raise ValueError(f"the judge hears {HEARD_SAMPLES} samples about a frame, not {sound.shape[-1]}")
    padded = F.pad(sound, (MEL_WINDOW // 2 - MEL_HOP // 2,) * 2)  # steps are centred on 10 ms
    window = torch.hann_window(MEL_WINDOW, device=sound.device)
    spectrum = torch.fft.rfft(padded.unfold(-1, MEL_WINDOW, MEL_HOP) * window)  # [B, steps, 257]
    power = spectrum.real.pow(2) + spectrum.imag.pow(2)
    return mel_filters().to(sound.device) @ power[:, :MEL_STEPS].transpose(1, 2)


def log_power(power: Tensor) -> Tensor:
    """What the judge hears: the logarithm, about -1 ... 1."""
    return torch.log10(power + MEL_FLOOR) / 3


def log_mel(sound: Tensor) -> Tensor:
    """320 ms of 16 kHz sound, float32 [B, 5120] in [-1, 1] -> [B, 80, 32]."""
    return log_power(mel_power(sound))


class SyncDiscriminator(nn.Module):
    """Embeds T lip crops and the sound about the middle one into one space. Colour tells it nothing.

    Args:
        frames: T, lip crops of one person in a row.
        width: of the embedding.
    """

    def __init__(self, frames: int = 5, width: int = 128) -> None:
        super().__init__()
        self.frames, self.width = frames, width
        self.visual = nn.Sequential(
            conv_block(frames, 32, 2),
            conv_block(32, 64, 2),
            conv_block(64, 64),
            conv_block(64, 128, 2),
            conv_block(128, 128),
            conv_block(128, 128, 2),
            nn.Flatten(),
            nn.Linear(128 * (LIP_HEIGHT // 16) * (LIP_WIDTH // 16), width),
        )
        self.sound = nn.Sequential(
            nn.Conv1d(MEL_BANDS, 128, 3, 1, 1),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Conv1d(128, 128, 3, 2, 1),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Conv1d(128, 128, 3, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(128 * (MEL_STEPS // 4), width),
        )

    def embed_lips(self, lips: Tensor) -> Tensor:
        """[B, T, 3, 48, 64] in [-1, 1] -> e_l float32 [B, width], of length 1."""
        return self.embed_grey(lips.mean(2))

    def embed_grey(self, lips: Tensor) -> Tensor:
        """[B, T, 48, 64] in [-1, 1] -> e_l float32 [B, width], of length 1.

        Mean and contrast of the T crops are taken out: skin and light are not its business.
        """
        spread, mean = torch.std_mean(lips.float(), (1, 2, 3), keepdim=True, unbiased=False)
        return F.normalize(self.visual((lips - mean) / (spread + 0.05)).float(), dim=1)

    def embed_sound(self, mel: Tensor) -> Tensor:
        """``log_mel`` of the sound about the middle frame [B, 80, 32] -> e_a float32 [B, width], of length 1."""
        return F.normalize(self.sound(mel).float(), dim=1)

    def forward(self, lips: Tensor, mel: Tensor) -> Tensor:
        """Score (6), the cosine of the two embeddings: [B] in [-1, 1]."""
        return (self.embed_lips(lips) * self.embed_sound(mel)).sum(1)


def sync_triplet_loss(e_l: Tensor, e_a: Tensor) -> Tensor:
    """Equation (7), both ways, in the sense of the paper's text: pairs in sync must score higher.

    Row i of the lips goes with row i of the sound; every other row is a negative, and those that still come
    within the margin are meaned, row by row. The paper prints the two cosines with the opposite signs, which
    would reward being out of sync.

    Args:
        e_l, e_a: embeddings of length 1, [..., B, width]; leading axes are batches of their own.
    """
    score = e_l @ e_a.transpose(-1, -2)  # [..., lips, sound]
    together = score.diagonal(dim1=-2, dim2=-1)
    other_sound = F.relu(MARGIN - together[..., :, None] + score)
    other_lips = F.relu(MARGIN - together[..., None, :] + score).transpose(-1, -2)
    miss = torch.stack([other_sound, other_lips])
    miss = miss * (1 - torch.eye(score.shape[-1], device=score.device))
    return (miss.sum(-1) / ((miss > 0).sum(-1) + 1)).mean()


def sync_loss(discriminator: SyncDiscriminator, lips: Tensor, mel: Tensor) -> Tensor:
    """Equation (8) for the generator: ``1 - cos`` of generated lips and the true sound, averaged."""
    return (1 - discriminator(lips, mel)).mean()


def freeze(discriminator: SyncDiscriminator) -> SyncDiscriminator:
    """As the generator sees it: fixed, yet letting gradients through to the lips."""
    return discriminator.eval().requires_grad_(False)


def lip_boxes(landmarks: Tensor, frames: int) -> Tensor:
    """Boxes about lips, one place and size for T frames in a row, so that what moves in them are the lips.

    Args:
        landmarks: [B * T, 478, 3], frames of a person one behind the other.
        frames: T.

    Returns:
        [B * T, 4], (x0, y0, x1, y1) in crop units.
    """
    rows = landmarks.unflatten(0, (-1, frames))
    centre = rows[:, :, torch.from_numpy(LIPS), :2].mean((1, 2))
    unit = (rows[:, :, 33, :2] - rows[:, :, 263, :2]).norm(dim=-1).mean(1, keepdim=True)
    size = unit * torch.tensor([BOX_HALF_WIDTH, BOX_HALF_HEIGHT], device=landmarks.device)
    return torch.cat([centre - size, centre + size], 1).repeat_interleave(frames, 0)


def crop_lips(image: Tensor, boxes: Tensor) -> Tensor:
    """Cut lip crops with the ground truth's boxes.

    Args:
        image: [B, C, H, W] in [-1, 1].
        boxes: [B, 4], (x0, y0, x1, y1) in [-1, 1] over the picture.

    Returns:
        [B, C, 48, 64].
    """
    across = (torch.arange(LIP_WIDTH, device=image.device) + 0.5) / LIP_WIDTH
    down = (torch.arange(LIP_HEIGHT, device=image.device) + 0.5) / LIP_HEIGHT
    x = boxes[:, 0, None] + (boxes[:, 2] - boxes[:, 0])[:, None] * across
    y = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * down
    grid = torch.stack([x[:, None].expand(-1, LIP_HEIGHT, -1), y[:, :, None].expand(-1, -1, LIP_WIDTH)], -1)
    return F.grid_sample(image, grid, align_corners=False, padding_mode="border")


def save_judge(path: Path, judge: SyncDiscriminator, credits: str) -> None:
    """Half-precision safetensors that carry their configuration and the credits of their data."""
    config = json.dumps(dict(frames=judge.frames, width=judge.width))
    meta = {"format": FORMAT_VERSION, "kind": "lip_sync_judge", "config": config, "credits": credits}
    save_file({name: value.half().contiguous() for name, value in judge.state_dict().items()}, str(path), metadata=meta)


def load_judge(path: Path = DEFAULT_JUDGE) -> SyncDiscriminator:
    """A frozen judge in float32.

    Raises:
        CheckpointError: missing, damaged, or no judge of this version.
    """
    if not path.is_file():
        raise CheckpointError(f"no lip-sync judge at {path}; train one with python -m tools.train compact_sync")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); train it again") from error
    if (meta.get("kind"), meta.get("format")) != ("lip_sync_judge", FORMAT_VERSION):
        raise CheckpointError(f"{path} is no lip-sync judge of format {FORMAT_VERSION}; train it again")
    try:
        judge = SyncDiscriminator(**json.loads(meta["config"]))
        judge.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
    return freeze(judge)
