"""Sound by position: a bounded ring of samples, and the hops and windows that frames are cut from.

A position is the count of samples since the stream began. Hop ``h`` is the sound
``[h * hop, (h + 1) * hop)``; frame ``k`` stands at position ``k * hop`` and looks at the window that
ends ``lookahead`` after it. Pure: no I/O, no clock.
"""

from __future__ import annotations

import numpy as np

from engine.api import EngineSpec


class SampleRing:
    """The newest ``capacity`` samples of a stream, addressed by position. Drops the oldest.

    What was never written reads as zero, and so does what has been dropped. Writing behind the newest
    sample fills holes, as long as their positions are still held.

    Args:
        capacity: samples held.
        dtype: of the samples.
    """

    def __init__(self, capacity: int, dtype: np.typing.DTypeLike = np.float32) -> None:
        if capacity <= 0:
            raise ValueError(f"a ring must hold at least one sample, not {capacity}")
        self._samples = np.zeros(capacity, dtype)
        self._end = 0

    @property
    def end(self) -> int:
        """Position after the newest sample."""
        return self._end

    @property
    def start(self) -> int:
        """Oldest position still held."""
        return max(0, self._end - len(self._samples))

    def write(self, position: int, samples: np.ndarray) -> int:
        """Put ``samples`` [n] at ``position``; a gap before them becomes zeros.

        Returns:
            how many of them were too old to be kept.
        """
        if position < 0:
            raise ValueError(f"positions start at 0, not {position}")
        self.extend(position + len(samples))
        kept = samples[max(0, self.start - position) :]
        self._put(position + len(samples) - len(kept), kept)
        return len(samples) - len(kept)

    def extend(self, end: int) -> None:
        """Move the newest end forward to ``end`` with zeros; never back."""
        missing = end - self._end
        if missing <= 0:
            return
        if missing >= len(self._samples):
            self._samples[:] = 0
        else:
            self._put(self._end, np.zeros(missing, self._samples.dtype))
        self._end = end

    def read(self, position: int, count: int) -> np.ndarray:
        """A copy of ``[position, position + count)``, [count]; zeros where nothing is held."""
        out = np.zeros(count, self._samples.dtype)
        first, last = max(position, self.start), min(position + count, self._end)
        if first < last:
            size = len(self._samples)
            out[first - position : last - position] = self._samples[np.arange(first, last) % size]
        return out

    def _put(self, position: int, samples: np.ndarray) -> None:
        size = len(self._samples)
        at = position % size
        head = min(len(samples), size - at)
        self._samples[at : at + head] = samples[:head]
        self._samples[: len(samples) - head] = samples[head:]


def hop_of(ring: SampleRing, hop: int, spec: EngineSpec) -> np.ndarray:
    """Hop ``hop`` of a stream, [spec.hop_samples]."""
    return ring.read(hop * spec.hop_samples, spec.hop_samples)


def window_span(frame: int, spec: EngineSpec) -> tuple[int, int]:
    """Positions ``(first, last + 1)`` of the sound that ``frame`` looks at; may begin before 0."""
    end = (frame + spec.lookahead_hops) * spec.hop_samples
    return end - spec.window_ms * spec.sample_rate_hz // 1000, end


def window_of(ring: SampleRing, frame: int, spec: EngineSpec) -> np.ndarray:
    """The sound that ``frame`` looks at, [window_ms * 16]; silence before the stream began.

    Equal to cutting the same span out of the whole recording, whatever the packets were.
    """
    first, end = window_span(frame, spec)
    return ring.read(first, end - first)
