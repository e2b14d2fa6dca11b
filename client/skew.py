"""How far sound and pictures really left apart, from what each was off its due instant."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from dataclasses import dataclass

REMEMBERED = 1500  # pictures of a minute


@dataclass(frozen=True, kw_only=True)
class Skew:
    """Milliseconds that pictures left after the sound of their instant; negative: before it."""

    median_ms: float
    p95_ms: float  # of the amounts, whichever way
    pictures: int

    def __str__(self) -> str:
        return f"{self.median_ms:+.0f} ms at the median, {self.p95_ms:.0f} ms at the 95th percentile"


class SkewGauge:
    """Collects from the threads that send. Keeps the newest REMEMBERED pictures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sound_late_s = 0.0
        self._apart_s: deque[float] = deque(maxlen=REMEMBERED)

    def sound_left(self, late_s: float) -> None:
        """Sound leaves ``late_s`` after it is due."""
        with self._lock:
            self._sound_late_s = late_s

    def picture_left(self, late_s: float) -> None:
        """A picture has left ``late_s`` after it was due."""
        with self._lock:
            self._apart_s.append(late_s - self._sound_late_s)

    def read(self) -> Skew | None:
        """Of the last minute; None before the first picture."""
        with self._lock:
            apart_s = sorted(self._apart_s)
        if not apart_s:
            return None
        amounts = sorted(abs(s) for s in apart_s)
        return Skew(
            median_ms=1000 * statistics.median(apart_s),
            p95_ms=1000 * amounts[int(0.95 * (len(amounts) - 1))],
            pictures=len(apart_s),
        )
