"""Received pictures -> a sink, each when it is due."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import av
import numpy as np

from client.skew import SkewGauge
from client.timeline import Timeline

HELD = 50  # two seconds; beyond that the oldest are dropped
AGAIN_S = 0.2  # a sink that saw nothing for so long gets its last picture again: some readers give up otherwise
STEP_S = 0.01  # how far due instants are trusted to stand still


class Sink(Protocol):
    """A window, a virtual camera. Its calls block, and come from one thread."""

    def show(self, picture: np.ndarray) -> None:
        """uint8 [H, W, 3] RGB; to be seen now."""

    def close(self) -> None: ...


class Picture:
    """A received picture. It is turned to RGB when somebody first asks for it; several threads may ask at once.

    PyAV keeps its converter on the frame, and does not lock it: two threads in it crash the process or wait for ever.
    """

    def __init__(self, frame: av.VideoFrame) -> None:
        self.width, self.height = frame.width, frame.height
        self._lock = threading.Lock()
        self._frame: av.VideoFrame | None = frame
        self._rgb: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3]; shared, not to be written to."""
        with self._lock:
            if self._frame is not None:
                # One thread: to start others takes longer than such a picture.
                self._rgb = self._frame.to_ndarray(format="rgb24", threads=1)
                self._frame = None
            assert self._rgb is not None
            return self._rgb


class Gallery:
    """Pictures that wait, by media time. Pure. Holds HELD, drops the oldest; what is overdue is passed over."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Picture]] = deque(maxlen=HELD)
        self.shown = self.passed_over = 0

    def put(self, media_s: float, picture: Picture) -> None:
        self.passed_over += len(self._waiting) == HELD
        self._waiting.append((media_s, picture))

    def clear(self) -> None:
        self._waiting.clear()

    def next_s(self) -> float | None:
        """Media time of the next; None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    def take(self, leaving_s: float) -> tuple[float, Picture] | None:
        """The newest that is due when media time ``leaving_s`` leaves; the older ones are passed over."""
        taken = None
        while self._waiting and self._waiting[0][0] <= leaving_s:
            self.passed_over += taken is not None
            taken = self._waiting.popleft()
        self.shown += taken is not None
        return taken


class PicturePacer:
    """Shows a gallery's pictures when they are due, on a thread of its own.

    Args:
        sinks: where each picture goes, in this order.
        gauge: told how late each has left.
        now: monotonic seconds.
    """

    def __init__(self, sinks: list[Sink], gauge: SkewGauge, now: Callable[[], float] = time.monotonic) -> None:
        self._sinks, self._gauge, self._now = sinks, gauge, now
        self._gallery = Gallery()
        self._timeline: Timeline | None = None
        self._came = asyncio.Event()
        self._last: np.ndarray | None = None
        self._painter = ThreadPoolExecutor(1, "pictures")

    @property
    def gallery(self) -> Gallery:
        return self._gallery

    def start(self, timeline: Timeline | None) -> None:
        """Begin with a new session, or with None: the last picture stays."""
        self._timeline = timeline
        self._gallery.clear()

    def put(self, media_s: float, picture: Picture) -> None:
        self._gallery.put(media_s, picture)
        self._came.set()

    async def run(self) -> None:
        """Until cancelled. What a sink raises ends it."""
        try:
            while True:
                await self._show_next()
        finally:
            self._painter.shutdown(wait=False)

    async def _show_next(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = self._due_s()
        if due_s is None:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), AGAIN_S)
            except TimeoutError:
                if self._last is not None:
                    await loop.run_in_executor(self._painter, self._show, self._last)
            return
        wait_s = due_s - self._now()
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, STEP_S))
            return
        assert self._timeline is not None
        leaving_s = self._timeline.leaving_s(self._now())
        taken = None if leaving_s is None else self._gallery.take(leaving_s)
        if taken is not None:
            media_s, picture = taken
            left_s = await loop.run_in_executor(self._painter, self._paint, picture)
            due_s = None if self._timeline is None else self._timeline.due_s(media_s)
            if due_s is not None:
                self._gauge.picture_left(left_s - due_s)

    def _due_s(self) -> float | None:
        media_s = self._gallery.next_s()
        return None if media_s is None or self._timeline is None else self._timeline.due_s(media_s)

    def _paint(self, picture: Picture) -> float:
        self._last = picture.rgb()
        self._show(self._last)
        return self._now()

    def _show(self, picture: np.ndarray) -> None:
        for sink in self._sinks:
            sink.show(picture)
