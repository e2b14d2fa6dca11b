"""The first layer of the compact speech encoder: a log-mel spectrum in place of learned filters.

Learned filters want hundreds of hours; from minutes of speech they stay far behind a spectrum (docs/training.md).
Each step depends on its own samples alone, so that a stream computes it once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000
LOW_HZ, HIGH_HZ = 50.0, 7600.0
FLOOR = 1e-5  # power under which all is silence
JITTER = (0.15, 0.1)  # in training: spread of a row's level, and of each value, in units of the layer's output
STRETCHES = tuple(0.82 + 0.025 * i for i in range(17))  # of the spectrum, in training: other throats


class LogMelLayer(nn.Module):
    """Stands where Wav2Vec2's first convolution stands, with its kernel and stride.

    In training each row's spectrum is stretched by a random factor, as if a longer or shorter throat spoke, and its
    values are jittered: small networks lean on fine detail that the next recording does not have.
    """

    def __init__(self, bands: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.shape: Tensor
        self.bank: Tensor
        self.register_buffer("shape", torch.hann_window(kernel, periodic=False), persistent=False)
        self.stretched: Tensor
        self.register_buffer("bank", mel_bank(bands, kernel), persistent=False)
        stretched = torch.stack([mel_bank(bands, kernel, stretch) for stretch in STRETCHES])
        self.register_buffer("stretched", stretched, persistent=False)

    @torch.no_grad()
    def forward(self, sound: Tensor) -> Tensor:
        """Sound [B, 1, samples] in [-1, 1] -> log power of mel bands, of about unit size, [B, bands, steps]."""
        with torch.autocast(sound.device.type, enabled=False):
            frames = sound[:, 0].float().unfold(1, self.kernel, self.stride) * self.shape
            bank = self.bank
            if self.training:
                bank = self.stretched[torch.randint(len(STRETCHES), (len(sound),), device=sound.device)]
            power = torch.fft.rfft(frames).abs().square() @ bank
            told = ((torch.log(power + FLOOR) + 6) / 4).transpose(1, 2)
            if self.training:
                told += JITTER[0] * torch.randn_like(told[:, :1, :1]) + JITTER[1] * torch.randn_like(told)
            return told


def mel_bank(bands: int, kernel: int, stretch: float = 1.0) -> Tensor:
    """Triangular filters, equally apart in mel: [kernel // 2 + 1, bands]; each holds one bin at least.

    ``stretch`` multiplies their frequencies, up to half the sample rate.
    """

    def to_mel(hz: float) -> Tensor:
        return 2595 * torch.log10(torch.tensor(1 + hz / 700))

    mel = torch.linspace(float(to_mel(LOW_HZ)), float(to_mel(HIGH_HZ)), bands + 2)
    hz = (700 * (10 ** (mel / 2595) - 1) * stretch).clamp(max=SAMPLE_RATE_HZ / 2)
    bins = torch.floor((kernel + 1) * hz / SAMPLE_RATE_HZ)
    low = bins[:-2].clamp(max=kernel // 2 - 2)
    middle = torch.maximum(bins[1:-1], low + 1)
    high = torch.maximum(bins[2:], middle + 1)
    at = torch.arange(kernel // 2 + 1)[:, None]
    return torch.minimum((at - low) / (middle - low), (high - at) / (high - middle)).clamp_min(0)
