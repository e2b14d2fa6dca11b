"""How late the event loop runs what is due: packets are received, paced and sent on it."""

from __future__ import annotations

import asyncio
from collections import deque

EVERY_S = 0.05  # how often it is looked
KEEP = 1200  # a minute


class LoopLag:
    """Asks the loop for a call at a time, over and over, and keeps how much later it came.

    Args:
        loop: that is watched; ``start`` and ``stop`` are called on it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lags_s: deque[float] = deque(maxlen=KEEP)
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._ask()

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def percentile_ms(self, percent: float) -> float:
        """Of the last minute; 0 before the first look."""
        kept = sorted(self._lags_s)
        return kept[min(len(kept) - 1, int(len(kept) * percent / 100))] * 1000 if kept else 0.0

    def _ask(self) -> None:
        due_s = self._loop.time() + EVERY_S
        self._next = self._loop.call_at(due_s, self._came, due_s)

    def _came(self, due_s: float) -> None:
        self._lags_s.append(max(0.0, self._loop.time() - due_s))
        self._ask()
