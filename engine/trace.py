"""Where the milliseconds go: spans per stage, kept in a bounded ring and, where asked for, written down.

::

    trace = Trace()
    with trace.span("step"):
        frames = engine.step(rows, state)
    trace.percentile_ms("step", 95)

All times are ``time.monotonic()``. On one machine every process reads the same clock (CLOCK_MONOTONIC on
Linux), so the spans of a server and of whoever measures it lie on one time line as they are.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import VisavisError

FORMAT = 1  # of the file's lines
WAITING_LINES = 20_000  # a minute of a busy server; a disk that hangs longer than that loses some
Sink = Callable[[dict[str, Any]], None]


class TraceError(VisavisError):
    """A trace cannot be written, or a file is none."""

    code = "trace_error"


class Trace:
    """The last ``keep`` durations of each stage. Thread-safe; drops the oldest.

    Args:
        keep: durations kept per stage.
        clock: seconds, monotonic.
        sink: where given, every span and event is also told to it: ``{"stage", "start_s", "ms", **notes}``,
            an event without ``ms``.
    """

    def __init__(
        self, keep: int = 256, *, clock: Callable[[], float] = time.monotonic, sink: Sink | None = None
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._sink = sink
        self._lock = threading.Lock()
        self._spans_ms: dict[str, deque[float]] = {}

    @contextmanager
    def span(self, stage: str, **notes: Any) -> Iterator[None]:
        """Time the block as one span of ``stage``, also when it raises."""
        start_s = self._clock()
        try:
            yield
        finally:
            self.add(stage, (self._clock() - start_s) * 1000, start_s=start_s, **notes)

    def add(self, stage: str, ms: float, *, start_s: float | None = None, **notes: Any) -> None:
        """Record a span that was timed elsewhere; ``notes`` go to the sink alone."""
        with self._lock:
            self._spans_ms.setdefault(stage, deque(maxlen=self._keep)).append(ms)
        if self._sink is not None:
            self._sink({"stage": stage, "start_s": start_s, "ms": round(ms, 4), **notes})

    def event(self, stage: str, at_s: float, **notes: Any) -> None:
        """Tell the sink of something without duration; nothing is kept of it."""
        if self._sink is not None:
            self._sink({"stage": stage, "start_s": at_s, **notes})

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


class TraceFile:
    """A sink that writes JSON lines on a thread of its own, so that nobody who measures waits for a disk.

    The first line is ``{"trace": FORMAT, "clock": "monotonic"}``. When more than WAITING_LINES are waiting,
    new ones are dropped; the last line then says how many: ``{"dropped": n}``.

    Args:
        path: written anew.

    Raises:
        TraceError: it cannot be written there.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise TraceError(f"the trace cannot be written to {str(path)!r} ({error.strerror})") from error
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._closed = False
        self._lines.put({"trace": FORMAT, "clock": "monotonic"})
        self._thread = threading.Thread(target=self._write, name="visavis-trace", daemon=True)
        self._thread.start()

    def __call__(self, line: dict[str, Any]) -> None:
        if self._closed:
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, and close. May be repeated."""
        if not self._closed:
            self._closed = True
            self._lines.put(None)
            self._thread.join()

    def _write(self) -> None:
        with self._file:
            while (line := self._lines.get()) is not None:
                self._file.write(json.dumps(line) + "\n")
            if self._dropped:
                self._file.write(json.dumps({"dropped": self._dropped}) + "\n")


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All spans and events of a ``TraceFile``, by their start; the torn last line of a killed server is left out.

    Raises:
        TraceError: it cannot be read, is no trace, or one of another version.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"the trace {str(path)!r} cannot be read ({error})") from error
    try:
        head, *lines = [json.loads(text) for text in texts if text.endswith("\n")]
        if head["trace"] != FORMAT or head["clock"] != "monotonic":
            raise TraceError(f"{str(path)!r} is a trace of version {head['trace']!r}; this reads {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{str(path)!r} is no trace of this server: make one with visavis serve --trace") from error
    return sorted((line for line in lines if line.get("start_s") is not None), key=lambda line: line["start_s"])
