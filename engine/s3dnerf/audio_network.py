"""Speech features -> the driving features ``a_dri`` (paper, section 2), with the lip-motion head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.s3dnerf.config import S3DConfig


class AudioNetwork(nn.Module):
    """1-D fully convolutional network over the window, and an auxiliary head of lip-motion codes.

    The codes (``lip_motion.py``) let the audio branch learn from landmarks, before and beside images.
    """

    def __init__(self, config: S3DConfig) -> None:
        super().__init__()
        audio = config.audio
        if audio.window_features != 4 * audio.tokens:
            raise ValueError(f"a window of {audio.window_features} features makes {audio.window_features // 4} tokens")
        self.convs = nn.Sequential(
            nn.Conv1d(audio.hidden, audio.width, 3, 1, 1),
            nn.GELU(),
            nn.Conv1d(audio.width, audio.width, 3, 2, 1),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Conv1d(audio.width, audio.width, 3, 2, 1),
        )
        self.codes = nn.Sequential(
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(audio.width * audio.tokens, 128),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(128, config.codes),
        )
        self.gated = audio.speech_gate
        if self.gated:
            self.speech = nn.Sequential(nn.GELU(), nn.Flatten(), nn.Linear(audio.width * audio.tokens, 1))
            self.closed = nn.Parameter(torch.zeros(config.codes))  # the codes of a mouth that has nothing to say

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Context features [B, T, hidden] -> a_dri [B, tokens, width] and lip-motion codes [B, codes]."""
        driving, codes, _ = self.hear(features)
        return driving, codes

    def hear(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, and the logit of the sound being speech [B]; without a gate it is taken for speech."""
        driving, codes, logit = self.tell(features)
        if self.gated:
            driving, codes = self.shut(driving, codes, logit.sigmoid())
        return driving, codes, logit

    def tell(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``hear``, whether it is speech or not."""
        driving = self.convs(features.transpose(1, 2))
        codes = self.codes(driving)
        logit = self.speech(driving)[:, 0] if self.gated else codes.new_full((len(codes),), torch.inf)
        return driving.transpose(1, 2), codes, logit

    def shut(self, driving: Tensor, codes: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Let a_dri and codes have a share [B] of what ``tell`` told; the rest is the closed mouth's."""
        return driving * share[:, None, None], self.closed + share[:, None] * (codes - self.closed)
