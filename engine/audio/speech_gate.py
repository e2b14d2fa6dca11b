"""Whether what a stream says is speech: the network's word for one instant, weighed by what has sounded before.

An orchestra now and then sounds like a vowel for a tenth of a second. Speech goes on being speech: what has sounded
for a while and was none makes the next instant less likely to be.
"""

from __future__ import annotations

import numpy as np

DECAY = 0.98  # of what was heard, per frame: two seconds
LOUD = 0.02  # root mean square in [0, 1] that counts wholly; silence says nothing about what comes after it
DOUBT = 10.0  # frames of loud sound that it takes to be half convinced
WEIGHT, MOST = 1.5, 6.0  # of the past beside the instant, and the most that it may take off a logit


class SpeechGate:
    """Evidence of each stream, slabs indexed by slot. The past can only shut the gate, never open it."""

    def __init__(self, slots: int) -> None:
        self._past = np.zeros((slots, 2))  # sums of logits and of their weights

    def reset(self, slot: int) -> None:
        self._past[slot] = 0

    def copy(self, slots: list[int]) -> np.ndarray:
        """What these streams have heard, for ``restore``."""
        return self._past[slots]

    def restore(self, slots: list[int], kept: np.ndarray) -> None:
        self._past[slots] = kept

    def open(self, slot: int, logit: float, sound: np.ndarray) -> float:
        """Hear one more frame of a stream.

        Args:
            slot: of the stream.
            logit: of the frame being speech, from the network; may be infinite.
            sound: that came with it, float32 [n] in [-1, 1].

        Returns:
            how far the mouth may follow, 0 to 1.
        """
        if np.isposinf(logit):  # of a network without a gate
            return 1.0
        loud = min(1.0, float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) / LOUD)
        self._past[slot] = self._past[slot] * DECAY + (loud * logit, loud)
        told, weight = self._past[slot]
        logit += min(0.0, max(-MOST, WEIGHT * told / (weight + DOUBT)))
        return float(1 / (1 + np.exp(-logit)))
