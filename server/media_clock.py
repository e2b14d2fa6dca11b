"""The one clock of a session: the count of 16 kHz samples received.

Position ``n`` is the instant at which sample ``n`` was heard. Sound and frames both leave by
``due_s(position)``, so nothing can move one against the other. Wall time enters in one place only:
``offset_s``, the wall time at which position 0 arrived. It is estimated from the packets that travelled
fastest lately and followed slowly, so the clock keeps the microphone's pace (whose crystal differs from
ours by up to some 100 ppm, 9 s a day), without passing the network's jitter on.

Pure: every method is told the time.
"""

from __future__ import annotations

import math
from collections import deque

SAMPLE_RATE_HZ = 16_000
MAX_SLEW = 0.04  # the clock runs at most so much faster or slower than the wall to catch up
OBSERVE_S = 1.0  # the fastest packet is looked for among those of so long


class MediaClock:
    """Positions to wall time and back.

    Args:
        now_s: wall time (monotonic) at which position 0 is heard.
        delay_s: how long after it was heard a position leaves.
    """

    def __init__(self, now_s: float, delay_s: float) -> None:
        self._offset_s = now_s
        self._delay_s = delay_s
        self._target_delay_s = delay_s
        self._moved_at_s = now_s
        self._arrivals: deque[tuple[float, float]] = deque()  # (at, offset seen), offsets rising: a sliding minimum

    @property
    def delay_s(self) -> float:
        """From hearing to leaving, the same for sound and frames."""
        return self._delay_s

    def position(self, now_s: float) -> int:
        """The position that is being heard now, if its packet travels as fast as the best."""
        return math.floor((now_s - self._offset_s) * SAMPLE_RATE_HZ)

    def leaving(self, now_s: float) -> int:
        """The position that is leaving now."""
        return self.position(now_s - self._delay_s)

    def due_s(self, position: int) -> float:
        """Wall time at which ``position`` leaves."""
        return self._offset_s + self._delay_s + position / SAMPLE_RATE_HZ

    def lateness_s(self, end: int, now_s: float) -> float:
        """How much later than expected sound up to position ``end`` has arrived; negative: early."""
        return now_s - end / SAMPLE_RATE_HZ - self._offset_s

    def observe(self, end: int, now_s: float) -> None:
        """Learn from a packet that ends at position ``end`` and arrived now."""
        seen = now_s - end / SAMPLE_RATE_HZ
        while self._arrivals and self._arrivals[-1][1] >= seen:
            self._arrivals.pop()
        self._arrivals.append((now_s, seen))
        while self._arrivals[0][0] < now_s - OBSERVE_S:
            self._arrivals.popleft()
        self.advance(now_s)

    def forget(self) -> None:
        """Drop what was learnt; the source has been placed anew."""
        self._arrivals.clear()

    def set_delay(self, delay_s: float) -> None:
        """Aim at another delay; sound and frames move there together, at MAX_SLEW."""
        self._target_delay_s = delay_s

    def advance(self, now_s: float) -> None:
        """Follow the arrivals and the wanted delay, by as much as the time since the last call allows."""
        step = MAX_SLEW * max(0.0, now_s - self._moved_at_s)
        self._moved_at_s = max(self._moved_at_s, now_s)
        if self._arrivals:
            self._offset_s += _clamp(self._arrivals[0][1] - self._offset_s, step)
        self._delay_s += _clamp(self._target_delay_s - self._delay_s, step)


class DelayControl:
    """How much delay a session needs: more while frames come late, less again when they have time to spare.

    Args:
        lookahead_ms: the engine's; the delay is this plus a margin.
        margin_ms: the least and first margin.
        max_margin_ms: the largest.
    """

    STEP_UP_MS, STEP_DOWN_MS = 20, 10
    LATE_SHARE = 0.1  # of the frames of a second; more are too many at once ...
    FEW_LATE, FEW_S = 3, 20  # ... and so many frames within so many seconds, 0.6 %, in the long run
    CALM_S = 10  # seconds without a late frame before the margin shrinks; twice as many where that was too early ...
    MOST_CALM_S = 80  # ... up to here

    def __init__(self, *, lookahead_ms: int, margin_ms: int, max_margin_ms: int) -> None:
        self._lookahead_ms = lookahead_ms
        self._least_ms, self._most_ms = margin_ms, max(margin_ms, max_margin_ms)
        self._margin_ms = margin_ms
        self._calm, self._patience_s, self._shrank = 0, self.CALM_S, False
        self._late: deque[int] = deque(maxlen=self.FEW_S)  # of each of the last seconds, since the margin grew

    @property
    def delay_s(self) -> float:
        return (self._lookahead_ms + self._margin_ms) / 1000

    def review(self, *, frames: int, late: int) -> float:
        """Once a second: the delay to aim at, in seconds, after ``late`` of ``frames`` were late."""
        self._calm = 0 if late else self._calm + 1
        self._late.append(late)
        if frames and (late / frames > self.LATE_SHARE or sum(self._late) >= self.FEW_LATE):
            self._margin_ms = min(self._most_ms, self._margin_ms + self.STEP_UP_MS)
            if self._shrank:
                self._patience_s = min(self.MOST_CALM_S, 2 * self._patience_s)
            self._shrank = False
            self._late.clear()
        elif self._calm >= self._patience_s and self._margin_ms > self._least_ms:
            self._margin_ms = max(self._least_ms, self._margin_ms - self.STEP_DOWN_MS)
            self._shrank = True
        return self.delay_s


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
