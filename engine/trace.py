"""Where the milliseconds go: spans per stage, kept in a bounded ring.

::

    trace = Trace()
    with trace.span("step"):
        frames = engine.step(rows, state)
    trace.percentile_ms("step", 95)
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO


class Trace:
    """The last ``keep`` durations of each stage. Thread-safe; drops the oldest.

    Args:
        keep: durations kept per stage.
        clock: seconds, monotonic.
        sink: where given, every span is also written there as one JSON line
            ``{"stage", "start_s", "ms"}``.
    """

    def __init__(
        self, keep: int = 256, *, clock: Callable[[], float] = time.perf_counter, sink: IO[str] | None = None
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._sink = sink
        self._lock = threading.Lock()
        self._spans_ms: dict[str, deque[float]] = {}

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time the block as one span of ``stage``, also when it raises."""
        start_s = self._clock()
        try:
            yield
        finally:
            self.add(stage, (self._clock() - start_s) * 1000, start_s=start_s)

    def add(self, stage: str, ms: float, *, start_s: float | None = None) -> None:
        """Record a span that was timed elsewhere."""
        with self._lock:
            self._spans_ms.setdefault(stage, deque(maxlen=self._keep)).append(ms)
            if self._sink is not None:
                line = {"stage": stage, "start_s": start_s, "ms": round(ms, 4)}
                self._sink.write(json.dumps(line) + "\n")

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages seen, in order of first appearance."""
        with self._lock:
            return tuple(self._spans_ms)

    def percentile_ms(self, stage: str, percent: float) -> float:
        """The ``percent``-th percentile of the kept spans; 0 where there is none."""
        with self._lock:
            kept = sorted(self._spans_ms.get(stage, ()))
        if not kept:
            return 0.0
        return kept[min(len(kept) - 1, int(len(kept) * percent / 100))]

    def summary_ms(self) -> dict[str, dict[str, float]]:
        """stage -> ``{"p50", "p95"}``."""
        return {s: {"p50": self.percentile_ms(s, 50), "p95": self.percentile_ms(s, 95)} for s in self.stages}
